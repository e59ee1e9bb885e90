// How many bytes an entry of the package adds to a page: bundled, minified and compressed, without its framework. With
// --parts also how many of them each module has, as its share of the minified code.
import { basename } from "node:path";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";
import { rolldown } from "rolldown";

const [, , input, parts] = process.argv;
const external = ["react", "react-native", "vue"];
const options = { external, bundle: true, minify: true, format: "esm", write: false, metafile: true };
const { outputFiles, metafile } = await build({ entryPoints: [input], ...options });
const bundle = await rolldown({ input, external, logLevel: "silent" });
const { output } = await bundle.generate({ format: "esm", minify: true });
const sizes = [outputFiles[0].contents, output[0].code].map((code) => gzipSync(code, { level: 9 }).length);
const size = Math.max(...sizes);
if (parts) {
  const [{ bytes, inputs }] = Object.values(metafile.outputs);
  const shares = Object.entries(inputs).map(([path, { bytesInOutput }]) => [basename(path, ".js"), (bytesInOutput / bytes) * size]);
  console.log(JSON.stringify(Object.fromEntries(shares)));
} else {
  console.log(size);
}
