// How many bytes the client adds to a page: bundled, minified and compressed.
import { gzipSync } from "node:zlib";
import { rolldown } from "rolldown";

const bundle = await rolldown({ input: process.argv[2] });
const { output } = await bundle.generate({ format: "esm", minify: true });
console.log(gzipSync(output[0].code, { level: 9 }).length);
