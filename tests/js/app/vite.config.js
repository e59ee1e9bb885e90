import { svelte } from "@sveltejs/vite-plugin-svelte";
import react from "@vitejs/plugin-react";
import vue from "@vitejs/plugin-vue";
import { defineConfig } from "vite";

export default defineConfig({
  plugins: [react(), vue(), svelte()],
  cacheDir: new URL("../node_modules/.vite", import.meta.url).pathname,
  // The package is linked in here, and finds React from where it is linked to; an app that has it installed needs no
  // such line.
  resolve: { preserveSymlinks: true },
  build: { emptyOutDir: true },
});
