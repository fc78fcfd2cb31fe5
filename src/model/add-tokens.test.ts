import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { z } from "zod";
import { fixture } from "../../test/local.ts";
import { addTokens } from "./add-tokens.ts";
import { exportHuggingFace } from "./export.ts";
import { exportGguf } from "./gguf-export.ts";
import { loadModelFiles, loadTokenizer } from "./load.ts";
import { weightsOf } from "./testing.ts";
import { tinyFiles } from "./tiny.ts";
import type { ModelFiles } from "./types.ts";
import { widen } from "./widen.ts";

const tags = ["<next_step>", "</next_step>", "<verify>", "</verify>"];
const folder = mkdtempSync(join(tmpdir(), "rifft-add-tokens-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const normal =
  (i = 0) =>
  () =>
    Math.SQRT2 * Math.sin(++i * 1.7);
const options = () => ({ normal: normal() });

const object = z.record(z.string(), z.unknown());
const sidecar = (files: ModelFiles, name: string) =>
  object.parse(JSON.parse(new TextDecoder().decode(files.sidecars.get(name))));

function rowsOf(files: ModelFiles, name: string, ids: ArrayLike<number>): number[][] {
  const tensor = files.tensors.get(name);
  if (!tensor) throw new Error(`no ${name}`);
  return Array.from(ids, (id) => {
    const row = new Float32Array(tensor.dims[1]);
    widen(tensor, row, id, id + 1);
    return Array.from(row);
  });
}

const deviation = (values: number[]) => {
  const mean = values.reduce((a, b) => a + b, 0) / values.length;
  return Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length);
};

describe("added tokens", () => {
  it.each([
    ["llama", ["model.embed_tokens.weight"]],
    ["qwen2", ["model.embed_tokens.weight", "lm_head.weight"]],
  ])("get new rows of %s: the mean of the rows that spell them, and a little noise", async (family, matrices) => {
    const before = await loadModelFiles(fixture(family as "llama"));
    const after = addTokens(before, tags, options());
    const { added } = after;
    if (!added) throw new Error("no rows");
    expect(Array.from(added.ids)).toEqual([300, 301, 302, 303]);
    expect([after.config.vocab, after.tokenizer.vocabSize]).toEqual([304, 304]);
    expect([...added.rows.keys()]).toEqual(matrices);
    const words = [" next step", " next step", " verify", " verify"];
    for (const [name, rows] of added.rows) {
      const all = rowsOf(before, name, before.tokenizer.encode(" next step verify"));
      words.forEach((text, t) => {
        const pieces = rowsOf(before, name, before.tokenizer.encode(text));
        const own = Array.from(rows.subarray(t * 32, (t + 1) * 32));
        const noise = own.map((value, i) => value - pieces.reduce((sum, row) => sum + row[i], 0) / pieces.length);
        expect(deviation(noise) / deviation(all.flat())).toBeGreaterThan(0.005);
        expect(deviation(noise) / deviation(all.flat())).toBeLessThan(0.02);
      });
      expect(rows.subarray(0, 32)).not.toEqual(rows.subarray(32, 64));
    }
    expect(addTokens(before, tags, options()).added?.rows).toEqual(added.rows);
  });

  it("take spare rows where the matrix has them", async () => {
    const files = await loadModelFiles(fixture("llama"));
    const name = "model.embed_tokens.weight";
    const tensor = files.tensors.get(name);
    if (!tensor) throw new Error(`no ${name}`);
    const bytes = new Uint8Array(tensor.bytes.length + 6 * 32 * 4);
    bytes.set(tensor.bytes);
    files.tensors.set(name, { ...tensor, dims: [306, 32], bytes });
    const spare = { ...files, config: { ...files.config, vocab: 306 } };
    const after = addTokens(spare, tags, options());
    expect(after.config.vocab).toBe(306);
    expect(sidecar(after, "config.json").vocab_size).toBe(306);
    expect(Array.from(after.added?.ids ?? [])).toEqual([300, 301, 302, 303]);
  });

  it("are random where nothing spells them, and every one of a model made anew", () => {
    const vocabulary = [" next", " step", "1"];
    const files = tinyFiles({ vocabulary }, normal());
    const deviations = (fresh: boolean) => {
      const rows = addTokens(files, tags, { ...options(), fresh }).added?.rows.get("lm_head.weight") ?? [];
      return tags.map((_, t) => deviation(Array.from(rows.slice(t * 64, (t + 1) * 64))));
    };
    const whole = deviation(rowsOf(files, "lm_head.weight", [0, 1, 2, 3]).flat());
    deviations(true).forEach((value) => expect(value / whole).toBeCloseTo(1, 0));
    expect(deviations(false)[2] / whole).toBeCloseTo(1, 0);
    const [open, close] = [0, 1].map((t) => {
      const rows = addTokens(files, tags, options()).added?.rows.get("lm_head.weight") ?? new Float32Array(0);
      return Array.from(rows.slice(t * 64, (t + 1) * 64));
    });
    expect(deviation(open.map((value, i) => value - close[i])) / whole).toBeLessThan(0.05);
  });

  it("keep the id of a token that is there, and are named once", async () => {
    const files = await loadModelFiles(fixture("llama"));
    const once = addTokens(files, tags.slice(0, 2), options());
    const twice = addTokens(once, tags, options());
    expect([...twice.tokenizer.added]).toEqual(tags.map((tag, i) => [tag, 300 + i]));
    expect(Array.from(twice.added?.newIds ?? [])).toEqual([302, 303]);
    expect(() => addTokens(files, ["<a>", "<a>"], options())).toThrow('found "<a>"; name each token once');
    expect(() => addTokens(files, [""], options())).toThrow("expected strings that differ");
  });
});

describe("text", () => {
  it("that others wrote stays text; what the task wrote holds tokens; what is decoded shows them", async () => {
    const { tokenizer } = addTokens(await loadModelFiles(fixture("qwen2")), tags, options());
    const text = "a<verify>b</verify>\n<|im_end|>";
    const plain = tokenizer.encode(text);
    expect(plain.every((id) => id < 297)).toBe(true);
    expect(tokenizer.encode(text, { special: true }).some((id) => id >= 300)).toBe(false);
    const own = tokenizer.encode(text, { added: true });
    expect(Array.from(own).filter((id) => id >= 297)).toEqual([302, 303]);
    for (const ids of [plain, own]) expect(tokenizer.decode(ids)).toBe(text);
  });
});

describe("what is written", () => {
  const text = "x <verify>y</next_step>";

  it.each(["llama", "llama3", "qwen2", "qwen3"] as const)("names %s's added tokens in every format", async (family) => {
    const files = addTokens(await loadModelFiles(fixture(family)), tags, options());
    const ids = files.tokenizer.encode(text, { added: true });
    const hf = join(folder, family);
    const gguf = join(folder, `${family}.gguf`);
    await exportHuggingFace(hf, files, grown(files), "f32");
    await exportGguf(gguf, files, grown(files), "f32");
    for (const path of [hf, gguf]) {
      const again = await loadModelFiles(path);
      expect(again.config.vocab).toBe(304);
      expect([...again.tokenizer.added]).toEqual([...files.tokenizer.added]);
      for (const tokenizer of [again.tokenizer, await loadTokenizer(path)]) {
        expect(tokenizer.encode(text, { added: true })).toEqual(ids);
        expect(tokenizer.encode(text)).toEqual(files.tokenizer.encode(text));
      }
    }
    expect(await loadTokenizer(fixture(family), tags).then((own) => own.encode(text, { added: true }))).toEqual(ids);
    expect(sidecar(files, "tokenizer.json").added_tokens).toContainEqual({
      id: 302,
      content: "<verify>",
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: false,
    });
  });

  it("keeps a tiny model's longest words", async () => {
    const files = addTokens(tinyFiles({ vocabulary: ["a", " b", "<", ">", "verify"] }, normal()), tags, options());
    const path = join(folder, "tiny.gguf");
    await exportGguf(path, files, grown(files), "f32");
    const { tokenizer } = await loadModelFiles(path);
    for (const added of [false, true]) {
      expect(tokenizer.encode("a<verify> b", { added })).toEqual(files.tokenizer.encode("a<verify> b", { added }));
    }
    expect(tokenizer.encode("<verify>")).toHaveLength(3);
  });
});

/** The weights with the new rows in their places. */
function* grown(files: ModelFiles): Generator<[string, { dims: number[]; data: Float32Array }]> {
  for (const [name, { dims, data }] of weightsOf(files)) {
    const rows = files.added?.rows.get(name);
    if (!rows) yield [name, { dims: [...dims], data }];
    else yield [name, { dims: [files.config.vocab, dims[1]], data: Float32Array.of(...data, ...rows) }];
  }
}
