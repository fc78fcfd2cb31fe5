// onnxruntime-node's install step downloads CUDA libraries that rifft doesn't use, and fails where it can't. It does nothing when
// those files exist. npm runs every package's `preinstall` before any `postinstall`, so empty ones put there now keep it quiet.
// Whoever wants them: npm rebuild onnxruntime-node --onnxruntime-node-install=cuda12
import { writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";

try {
  const require = createRequire(import.meta.url);
  const root = dirname(require.resolve("onnxruntime-node/package.json"));
  const { requirements, manifests } = require(join(root, "script", "install-metadata.js"));
  const platform = `${process.platform}/${process.arch}`;
  const files = (requirements[platform] ?? []).flatMap((name) => Object.keys(manifests[`${platform}:${name}`] ?? {}));
  for (const file of files) {
    try {
      writeFileSync(join(root, "bin", "napi-v6", platform, file), "", { flag: "wx" });
    } catch (error) {
      if (error.code !== "EEXIST") throw error;
    }
  }
} catch {
  // Another layout of that package, or another installer: its own step then decides.
}
