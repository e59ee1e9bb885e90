import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

export default defineConfig({
  root: import.meta.dirname,
  plugins: [react()],
  cacheDir: "../node_modules/.vite",
  // The package is linked in, and finds React from where it is linked to. An app that has it installed needs no such line.
  resolve: { preserveSymlinks: true },
  build: { emptyOutDir: true },
});
