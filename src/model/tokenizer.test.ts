import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { gunzipSync } from "node:zlib";
import fc from "fast-check";
import { beforeAll, describe, expect, it } from "vitest";
import { z } from "zod";
import { UserError } from "../errors.ts";
import { loadModelFiles } from "./load.ts";
import { createTokenizer, tokenizerJsonSchema } from "./tokenizer.ts";
import type { Tokenizer } from "./types.ts";

const root = join(import.meta.dirname, "..", "..");
const fixtures = join(root, "test", "fixtures", "models");
const read = (path: string): unknown => JSON.parse(readFileSync(path, "utf8"));

function fixtureTokenizer(family: string, chatTemplate?: string): Tokenizer {
  const path = join(fixtures, family, "tokenizer.json");
  return createTokenizer({
    json: tokenizerJsonSchema.parse(read(path)),
    specialTokens: { bos_token: "<|endoftext|>", eos_token: "<|im_end|>" },
    chatTemplate,
    path,
  });
}

describe("special tokens", () => {
  const tokenizer = fixtureTokenizer("qwen2");
  const text = "a<|im_end|>b";

  it("stay text unless asked for", () => {
    const end = tokenizer.idOf("<|im_end|>");
    expect(end).toBe(299);
    const plain = tokenizer.encode(text);
    expect(plain).not.toContain(end);
    expect(tokenizer.decode(plain)).toBe(text);
    expect(Array.from(tokenizer.encode(text, { special: true }))).toEqual([
      ...tokenizer.encode("a"),
      end,
      ...tokenizer.encode("b"),
    ]);
  });

  it("are left out of decoded text unless asked for", () => {
    const ids = tokenizer.encode(text, { special: true });
    expect(tokenizer.decode(ids)).toBe("ab");
    expect(tokenizer.decode(ids, { special: true })).toBe(text);
    expect(tokenizer.decode([])).toBe("");
  });

  it("are never among the ids of a text, and the text comes back", () => {
    const piece = fc.oneof(
      fc.string({ unit: "binary" }),
      fc.constantFrom("<|im_end|>", "<|im_", "end|>", "  7", "\n\n", "\t"),
    );
    const valid = fc.array(piece).map((pieces) => pieces.join("").normalize("NFC"));
    fc.assert(
      fc.property(valid, (text) => {
        const ids = tokenizer.encode(text);
        expect(ids.every((id) => id < 297)).toBe(true);
        expect(tokenizer.decode(ids)).toBe(text);
      }),
      { numRuns: 300 },
    );
  });

  it("take white space beside them where the file says so; the longest of several wins; unknown ids have no text", () => {
    const json = tokenizerJsonSchema.parse(read(join(fixtures, "llama", "tokenizer.json")));
    const added = { special: true, single_word: false, normalized: false };
    json.added_tokens.push(
      { ...added, id: 300, content: "<a>", lstrip: true, rstrip: true },
      { ...added, id: 301, content: "<a><b>", lstrip: false, rstrip: false },
      { ...added, id: 302, content: "<think>", lstrip: false, rstrip: false, special: false },
    );
    const own = createTokenizer({ json, specialTokens: {}, path: "test" });
    const ids = (text: string) => Array.from(own.encode(text, { special: true }));
    expect(ids("x <a> y")).toEqual([...ids("x"), 300, ...ids("y")]);
    expect(ids("x <a><b> y")).toEqual([...ids("x "), 301, ...ids(" y")]);
    expect(own.vocabSize).toBe(303);
    expect(own.decode([1000, 302, -1])).toBe("<think>");
    // Not special, so a text may hold it.
    expect(Array.from(own.encode("<think>"))).toEqual([302]);
  });
});

describe("chat templates", () => {
  it("see bos and eos, the generation prompt, and a date that never changes", () => {
    const template =
      "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}{% if tools is none and add_generation_prompt %}>{% endif %}{{ date_string }}";
    const tokenizer = fixtureTokenizer("llama", template);
    expect(tokenizer.hasChatTemplate).toBe(true);
    expect(tokenizer.renderChat([{ role: "user", content: "hi" }])).toBe("<|endoftext|>user: hi<|im_end|>>26 Jul 2024");
  });

  it("refuse what they refuse, and a model without one says so", () => {
    const strict = fixtureTokenizer("llama", "{{ raise_exception('roles must alternate') }}");
    expect(() => strict.renderChat([])).toThrow(UserError);
    expect(() => strict.renderChat([])).toThrow(/roles must alternate/);
    expect(fixtureTokenizer("llama").hasChatTemplate).toBe(false);
    expect(() => fixtureTokenizer("llama").renderChat([])).toThrow(/no chat template/);
  });
});

describe("numbers of all scripts are split as the tokenizers library splits them", () => {
  it("Digits takes every Unicode number", () => {
    const json = tokenizerJsonSchema.parse(read(join(fixtures, "llama", "tokenizer.json")));
    const tokenizer = createTokenizer({ json, specialTokens: {}, path: "test" });
    // One half, with a space before it: a number of its own, so the space stands alone.
    expect(Array.from(tokenizer.encode(" \u00bd"))).toEqual([...tokenizer.encode(" "), ...tokenizer.encode("\u00bd")]);
  });
});

const shared = resolve(root, process.env.RIFFT_SHARED ?? "../shared");
const questions = join(shared, "data", "gsm8k", "train.jsonl");
const gguf = join(shared, "models", "smollm2-135m-instruct.Q4_1.gguf");

describe.skipIf(!existsSync(gguf))(`SmolLM2 (skipped without ${gguf})`, () => {
  let tokenizer: Tokenizer;
  beforeAll(async () => {
    tokenizer = (await loadModelFiles(gguf)).tokenizer;
  });

  /** Made by the `tokenizers` library: see test/fixtures/scripts. */
  const expected = z
    .object({
      texts: z.array(z.object({ text: z.string(), ids: z.array(z.number()) })),
      sha256: z.array(z.string()),
      tokens: z.number(),
    })
    .parse(JSON.parse(gunzipSync(readFileSync(join(fixtures, "..", "smollm2-tokenizer.json.gz"))).toString()));

  it("gives the ids of the tokenizers library where splits and decoders part ways", () => {
    for (const { text, ids } of expected.texts) {
      expect(Array.from(tokenizer.encode(text, { special: true }))).toEqual(ids);
      expect(tokenizer.decode(ids, { special: true })).toBe(text);
      expect(tokenizer.decode(tokenizer.encode(text))).toBe(text);
    }
  });

  it.skipIf(!existsSync(questions))(`gives its ids of 1,000 GSM8K questions (skipped without ${questions})`, () => {
    const lines = readFileSync(questions, "utf8").split("\n").slice(0, expected.sha256.length);
    let tokens = 0;
    for (const [i, line] of lines.entries()) {
      const { question } = z.object({ question: z.string() }).parse(JSON.parse(line));
      const ids = tokenizer.encode(question);
      expect(createHash("sha256").update(ids).digest("hex").slice(0, 16)).toBe(expected.sha256[i]);
      expect(tokenizer.decode(ids)).toBe(question);
      tokens += ids.length;
    }
    expect(lines).toHaveLength(1000);
    expect(tokens).toBe(expected.tokens);
  });

  it("splits digits one by one before the GPT-2 pattern", () => {
    const texts = (text: string) => Array.from(tokenizer.encode(text), (id) => tokenizer.decode([id]));
    expect(texts("in 1234")).toEqual(["in", " ", "1", "2", "3", "4"]);
    expect(texts("x  7")).toEqual(["x", "  ", "7"]);
  });

  it("renders its chat", () => {
    const text = tokenizer.renderChat([{ role: "user", content: "What is 7+5?" }]);
    expect(text).toBe(
      "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n<|im_start|>user\nWhat is 7+5?<|im_end|>\n<|im_start|>assistant\n",
    );
    expect(tokenizer.encode(text, { special: true }).slice(0, 4)).toEqual(Int32Array.of(1, 9690, 198, 2683));
  });
});
