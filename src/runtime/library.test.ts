import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, it, vi } from "vitest";
import { library } from "./library.ts";

const platform = Object.getOwnPropertyDescriptor(process, "platform")!;
const arch = Object.getOwnPropertyDescriptor(process, "arch")!;

/** The library as a process on another machine, or with RIFFT_ORT set, would look for it. */
async function libraryElsewhere(change: { platform?: string; arch?: string; named?: string }): Promise<unknown> {
  if (change.platform) Object.defineProperty(process, "platform", { ...platform, value: change.platform });
  if (change.arch) Object.defineProperty(process, "arch", { ...arch, value: change.arch });
  vi.stubEnv("RIFFT_ORT", change.named ?? "");
  vi.resetModules();
  const fresh = await import("./library.ts");
  return fresh.library();
}

afterEach(() => {
  Object.defineProperty(process, "platform", platform);
  Object.defineProperty(process, "arch", arch);
  vi.unstubAllEnvs();
});

describe("the native library", () => {
  it("is found in onnxruntime-node, loaded once, and says its version", () => {
    expect(library().version).toMatch(/^1\.\d+\.\d+/);
    expect(library()).toBe(library());
  });

  it("is loaded from where RIFFT_ORT points", async () => {
    const { path, version } = library();
    expect(await libraryElsewhere({ named: path })).toMatchObject({ path, version });
  });

  it("that is missing for a platform is an error of one line that names platform, path and way out", async () => {
    await expect(libraryElsewhere({ platform: "darwin", arch: "x64" })).rejects.toThrow(
      /^onnxruntime-node carries no library for darwin x64 \(looked for .*darwin.x64.libonnxruntime\.1\.dylib\); RIFFT_ORT may name .*$/,
    );
    await expect(libraryElsewhere({ platform: "freebsd" })).rejects.toThrow("no library for freebsd");
  });

  it("that RIFFT_ORT names wrongly is an error of one line", async () => {
    await expect(libraryElsewhere({ named: "no-such-file.so" })).rejects.toThrow(
      /^RIFFT_ORT names .*no-such-file\.so, which does not exist$/,
    );
    const folder = mkdtempSync(join(tmpdir(), "rifft-library-"));
    try {
      const text = join(folder, "text.so");
      writeFileSync(text, "not a library");
      await expect(libraryElsewhere({ named: text })).rejects.toThrow(
        /^cannot load ONNX Runtime from .*text\.so: .*RIFFT_ORT.*$/,
      );
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
