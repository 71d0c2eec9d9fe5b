import { cp } from "node:fs/promises";

import { defineConfig } from "vite";

// LiteRT loads one of three builds, depending on the browser. The fourth is
// for accelerators that the page does not use.
const runtime = {
  name: "litert-wasm",
  apply: "build",
  async closeBundle() {
    await cp("node_modules/@litertjs/core/wasm", "dist/wasm", {
      recursive: true,
      filter: (path) => !path.includes("_jspi_"),
    });
  },
};

export default defineConfig({
  appType: "mpa", // A missing file is an error instead of the page.
  base: "./",
  build: { target: "es2022", modulePreload: { polyfill: false } },
  plugins: [runtime],
  preview: {
    // Browsers allow threads only with these two headers.
    headers: {
      "Cross-Origin-Opener-Policy": "same-origin",
      "Cross-Origin-Embedder-Policy": "require-corp",
    },
  },
});
