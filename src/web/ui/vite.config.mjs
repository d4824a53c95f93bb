import { readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { constants, gzipSync } from "node:zlib";
import { defineConfig } from "vite";

const OUTPUT = join(import.meta.dirname, "../static");

/** Writes a `.gz` beside each file, so that the server never compresses. */
const compressed = {
  name: "compressed",
  apply: "build",
  closeBundle() {
    for (const file of files(OUTPUT)) {
      writeFileSync(`${file}.gz`, gzipSync(readFileSync(file), { level: constants.Z_BEST_COMPRESSION }));
    }
  },
};

function files(folder) {
  return readdirSync(folder).flatMap(name => {
    const path = join(folder, name);
    return statSync(path).isDirectory() ? files(path) : [path];
  });
}

export default defineConfig({
  plugins: [compressed],
  build: {
    outDir: OUTPUT,
    emptyOutDir: true,
    assetsInlineLimit: 0, // an asset has an address that can be kept for ever
    target: "es2022",
    modulePreload: { polyfill: false },
    rolldownOptions: {
      // All that several views share comes in one piece, so that a first visit needs few requests.
      output: {
        codeSplitting: { groups: [{ name: "shared", test: /\/(components|state|api|text|preact)\// }] },
      },
    },
  },
  test: { include: ["tests/**/*.test.ts"] },
});
