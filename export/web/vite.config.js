import { cp } from "node:fs/promises";

import { defineConfig } from "vite";

// Loading chooses one of three builds of LiteRT by what the browser can do;
// the fourth is for accelerators that the page does not use.
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
  appType: "mpa", // What isn't there is an error, not the page once more.
  base: "./",
  build: { target: "es2022", modulePreload: { polyfill: false } },
  plugins: [runtime],
  preview: {
    // Without these two, a browser gives a page no threads.
    headers: {
      "Cross-Origin-Opener-Policy": "same-origin",
      "Cross-Origin-Embedder-Policy": "require-corp",
    },
  },
});
