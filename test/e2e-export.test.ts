import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { beforeAll, describe, expect, test } from "vitest";
import { z } from "zod";
import { loadModelFiles } from "../src/model/load.ts";
import { readSafetensorsHeader } from "../src/model/safetensors.ts";
import { exportRun } from "../src/run/export.ts";
import { loadTask } from "../src/task/load.ts";
import { encodePrompt, encodeResponse } from "../src/task/prompt.ts";
import { TAG_TOKENS } from "../src/tags/index.ts";
import { rifft, startRifft } from "./helpers/cli.ts";

const dir = mkdtempSync(join(tmpdir(), "rifft-export-"));
const run = join(dir, "run");
const adapter = join(dir, "adapter");
const out = join(dir, "out");

const recipe = (lora = "") => `
model = "tiny"
task = { name = "wordproblems", demonstrations = 64 }
${lora}
[[stage]]
method = "sft"
steps = 3
batch = 4
lr = 1e-2
`;

beforeAll(async () => {
  mkdirSync(out);
  writeFileSync(join(dir, "r.toml"), recipe());
  writeFileSync(join(dir, "lora.toml"), recipe('lora = { rank = 2, alpha = 4 }\nfunctions = "tokens"'));
  for (const [file, folder] of [
    ["r.toml", run],
    ["lora.toml", adapter],
  ]) {
    const ended = await rifft(["train", join(dir, file), "--run", folder]);
    expect(ended.code, ended.stderr).toBe(0);
  }
});

const exportArgs = (folder: string, format: string, target: string, ...more: string[]) =>
  ["export", "--run", folder, "--format", format, "--out", target].concat(more);
const resultSchema = z.object({
  dtype: z.string(),
  out: z.string(),
  verification: z.object({ tokens: z.literal(200), largest: z.number(), mean: z.number() }),
});
const scoresSchema = z.object({ logprobs: z.array(z.array(z.number().nullable())) });

describe("what is exported", () => {
  test.each([
    [run, "hf", "f32", 1e-6, 0],
    [adapter, "merged", "f32", 1e-4, 0],
    [adapter, "merged", "bf16", 0.1, 1e-5],
    [adapter, "peft", "f32", 1e-6, 0],
    [run, "gguf", "f16", 1e-2, 1e-6],
    [adapter, "gguf", "f32", 1e-4, 0],
    [run, "gguf", "q8_0", 0.2, 1e-5],
    [run, "onnx", "f32", 1e-4, 0],
    [adapter, "onnx", "f32", 1e-4, 0],
    [run, "onnx", "f16", 1e-2, 1e-6],
  ])("scores the same, and --verify says so: %s as %s, %s", async (folder, format, dtype, limit, least) => {
    const target = join(out, `${folder === run ? "full" : "lora"}-${dtype}.${format}`);
    const ended = await rifft(exportArgs(folder, format, target, "--dtype", dtype, "--verify", "--json"));
    const result = resultSchema.parse(JSON.parse(ended.stdout));
    expect(result).toMatchObject({ dtype, out: target });
    expect(result.verification.largest).toBeLessThanOrEqual(limit);
    expect(result.verification.largest).toBeGreaterThanOrEqual(least);
    expect(result.verification.mean).toBeLessThanOrEqual(result.verification.largest);
    expect(readdirSync(out).filter((name) => name.startsWith("."))).toEqual([]);
    if (format === "peft" || format === "onnx") return;
    // The other way to the same numbers.
    const tokens = join(dir, "t.json");
    writeFileSync(tokens, "[[5, 6, 7, 8, 9, 10]]");
    const [before, after] = await Promise.all(
      [folder, target].map((model) => rifft(["score", "--model", model, "--tokens", tokens])),
    );
    const [a, b] = [before, after].map((each) => scoresSchema.parse(JSON.parse(each.stdout)).logprobs[0].slice(1));
    a.forEach((value, i) => expect(Math.abs((value ?? NaN) - (b[i] ?? NaN))).toBeLessThan(Math.max(limit, 1e-4)));
  });

  test("holds the functional tokens, which are tokens in a response and text in a prompt", async () => {
    const format = async (name: "merged" | "gguf" | "peft") => {
      const target = join(out, name === "gguf" ? "tags.gguf" : `tags-${name}`);
      await exportRun({ run: adapter, format: name, out: target });
      return target;
    };
    for (const path of [await format("merged"), await format("gguf")]) {
      const { tokenizer, config } = await loadModelFiles(path);
      expect([...tokenizer.added.keys()]).toEqual(TAG_TOKENS);
      expect(config.vocab).toBe(tokenizer.vocabSize);
      const ids = encodeResponse(tokenizer, "<verify>12</verify>");
      expect(ids.length).toBe(4);
      expect(tokenizer.decode(ids)).toBe("<verify>12</verify>");
      expect(() => tokenizer.encode("<verify>")).toThrow("no token for");
    }
    const peft = await format("peft");
    const config = z
      .object({ trainable_token_indices: z.record(z.string(), z.array(z.number())) })
      .parse(JSON.parse(readFileSync(join(peft, "adapter_config.json"), "utf8")));
    expect(Object.keys(config.trainable_token_indices).sort()).toEqual(["embed_tokens", "lm_head"]);
    const header = await readSafetensorsHeader(join(peft, "adapter_model.safetensors"));
    expect(header.get("base_model.model.lm_head.token_adapter.trainable_tokens_delta")?.dims).toEqual([16, 64]);
    expect(readdirSync(peft)).toContain("tokenizer.json");
  });

  test("has a tokenizer that gives the same ids on 1,000 problems", async () => {
    const target = join(out, "ids.gguf");
    await exportRun({ run, format: "gguf", out: target });
    const { tokenizer } = await loadModelFiles(target);
    await exportRun({ run, format: "hf", out: join(out, "ids") });
    const { tokenizer: before } = await loadModelFiles(join(out, "ids"));
    const task = await loadTask({ name: "wordproblems" }, { baseDir: dir, seed: 3 });
    const problems = await task.problems("train");
    for (let i = 0; i < 1000; i++) {
      const ids = encodePrompt(tokenizer, problems.at(i));
      expect(ids.length).toBeGreaterThan(5);
      expect(ids).toEqual(encodePrompt(before, problems.at(i)));
    }
    await task.close();
  });
});

describe("what cannot be exported is one clear line, and nothing is written", () => {
  test.each([
    [
      "a type that the format lacks",
      "hf",
      "new",
      ["--dtype", "q8_0"],
      /--format hf cannot store q8_0; expected --dtype f32, f16, bf16/,
    ],
    [
      "the nearest type that it has",
      "onnx",
      "new",
      ["--dtype", "bf16"],
      /expected --dtype f32, f16; did you mean f16\?/,
    ],
    ["a GGUF file without its ending", "gguf", "new", [], /ends in \.gguf/],
    ["a folder that holds something", "onnx", "../run", [], /not empty/],
    ["a file that exists", "gguf", "../there.gguf", [], /exists; choose another name/],
    ["all weights as an adapter", "merged", "new", [], /export it with --format hf/],
  ])("%s", async (_, format, target, more, message) => {
    writeFileSync(join(dir, "there.gguf"), "mine");
    const before = readdirSync(out);
    const ended = await rifft(exportArgs(run, format, join(out, target), ...more));
    expect(ended.stderr).toMatch(message);
    expect(ended.stderr.trimEnd().split("\n")).toHaveLength(1);
    expect(ended.code).toBe(1);
    expect(readdirSync(out)).toEqual(before);
  });

  // A limit on the size of files fails in the middle of one, as a full disk does.
  test.skipIf(process.platform === "win32")("a file that the disk does not take", () => {
    const bin = fileURLToPath(new URL("../bin/rifft", import.meta.url));
    for (const [format, name] of [
      ["gguf", "full-disk.gguf"],
      ["onnx", "full-disk-onnx"],
      ["hf", "full-disk-hf"],
    ]) {
      const args = exportArgs(run, format, join(out, name), "--dtype", "f32");
      const limited = spawnSync("bash", ["-c", 'ulimit -f 200; exec "$0" "$@"', process.execPath, bin, ...args]);
      expect(limited.stderr.toString()).toMatch(/^error: cannot write .*no file of this size/);
      expect(limited.status).toBe(1);
      expect(readdirSync(out).filter((entry) => entry.includes(name))).toEqual([]);
    }
  });

  test("an interrupted export leaves nothing, and a killed one at most a hidden file", async () => {
    const target = join(out, "interrupted.gguf");
    const interrupted = exportRun({ run, format: "gguf", out: target, signal: AbortSignal.abort() });
    await expect(interrupted).rejects.toThrow("interrupted");
    expect(readdirSync(out).filter((name) => name.includes("interrupted"))).toEqual([]);
    for (const delay of [200, 400, 600]) {
      const { child, end } = startRifft(exportArgs(run, "gguf", target));
      await setTimeout(delay);
      child.kill("SIGKILL");
      await end;
      // Whole or not there.
      if (existsSync(target)) expect((await loadModelFiles(target)).config.layers).toBe(3);
    }
    if (!existsSync(target)) await exportRun({ run, format: "gguf", out: target });
    expect((await loadModelFiles(target)).config.layers).toBe(3);
  });
});
