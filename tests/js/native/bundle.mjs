// Bundles an app for iOS as React Native does, with Metro, and prints the bundle's size. usage: node bundle.mjs APP_FOLDER
import { writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import Metro from "metro";

const [, , app] = process.argv;
const packages = fileURLToPath(new URL("node_modules", import.meta.url));
writeFileSync(`${app}/babel.config.js`, 'module.exports = { presets: ["@react-native/babel-preset"] };\n');
const config = await Metro.loadConfig({}, {
  projectRoot: app,
  watchFolders: [app, packages],
  maxWorkers: 1,
  resolver: { nodeModulesPaths: [packages], platforms: ["ios"] },
  cacheStores: [],
});
const { code } = await Metro.runBuild(config, { entry: "index.js", platform: "ios", dev: false, minify: true });
if (!code.includes("reactor.json")) throw new Error("the bundle lacks the client");
console.log(code.length);
