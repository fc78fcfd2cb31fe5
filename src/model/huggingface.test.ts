import { cp, mkdtemp, readFile, rm, truncate, unlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { z } from "zod";
import { UserError } from "../errors.ts";
import { loadModelFiles } from "./load.ts";
import { SafetensorsWriter } from "./safetensors.ts";
import { tensorShapes } from "./shape.ts";
import type { ModelConfig } from "./types.ts";

const models = join(import.meta.dirname, "..", "..", "test", "fixtures", "models");
let scratch: string;
beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), "rifft-huggingface-"));
});
afterAll(() => rm(scratch, { recursive: true }));

const common = {
  layers: 2,
  hidden: 32,
  heads: 4,
  kvHeads: 2,
  headDim: 8,
  intermediate: 48,
  vocab: 300,
  maxContext: 128,
  ropeTheta: 10000,
};
const families: Record<string, Partial<ModelConfig>> = {
  llama: { ...common, architecture: "llama", tiedEmbeddings: true, rmsEps: 1e-5, qkvBias: false, qkNorm: false },
  llama3: {
    ...common,
    architecture: "llama",
    tiedEmbeddings: false,
    rmsEps: 1e-5,
    ropeTheta: 100,
    ropeScaling: { factor: 8, lowFreqFactor: 1, highFreqFactor: 4, originalMaxContext: 32 },
  },
  qwen2: { ...common, architecture: "qwen2", tiedEmbeddings: false, qkvBias: true, ropeTheta: 1e6, rmsEps: 1e-6 },
  qwen3: { ...common, architecture: "qwen3", tiedEmbeddings: true, qkNorm: true, headDim: 16, ropeTheta: 1e6 },
};

const expectedSchema = z.looseObject({
  tokenizer: z.array(z.object({ text: z.string(), ids: z.array(z.number()) })),
  chat: z.object({
    messages: z.array(z.object({ role: z.enum(["system", "user", "assistant"]), content: z.string() })),
    rendered: z.string(),
    ids: z.array(z.number()),
  }),
});

describe.each(Object.keys(families))("a folder that transformers wrote: %s", (family) => {
  const folder = join(models, family);

  it("gives config and every tensor", async () => {
    const { config, tensors, sidecars } = await loadModelFiles(folder);
    expect(config).toMatchObject(families[family]);
    expect(config.ropeScaling).toEqual(families[family].ropeScaling);
    expect(new Set(tensors.keys())).toEqual(new Set(tensorShapes(config).keys()));
    const type = { llama: "f32", llama3: "bf16", qwen2: "f16", qwen3: "f32" }[family];
    for (const tensor of tensors.values()) expect(tensor.type).toBe(type);
    expect([...sidecars.keys()]).toEqual(expect.arrayContaining(["config.json", "tokenizer.json"]));
  });

  it("has several EOS ids, from all of its files", async () => {
    const { config, tokenizer } = await loadModelFiles(folder);
    const names = family === "llama3" ? ["<|end_of_text|>", "<|eot_id|>"] : ["<|im_end|>", "<|endoftext|>"];
    expect(new Set(config.eosIds)).toEqual(new Set(names.map((name) => tokenizer.idOf(name))));
  });

  it("tokenises and renders chats as transformers does", async () => {
    const { tokenizer } = await loadModelFiles(folder);
    const expected = expectedSchema.parse(JSON.parse(await readFile(join(folder, "expected.json"), "utf8")));
    for (const { text, ids } of expected.tokenizer) {
      expect(Array.from(tokenizer.encode(text))).toEqual(ids);
      // Qwen's normaliser composes characters, so only its own form comes back.
      expect(tokenizer.decode(ids)).toBe(family.startsWith("qwen") ? text.normalize("NFC") : text);
    }
    expect(tokenizer.renderChat(expected.chat.messages)).toBe(expected.chat.rendered);
    expect(Array.from(tokenizer.encode(expected.chat.rendered, { special: true }))).toEqual(expected.chat.ids);
    expect(tokenizer.decode(expected.chat.ids, { special: true })).toBe(expected.chat.rendered);
  });
});

describe("what cannot be loaded is refused in one line", () => {
  /** A copy of a fixture, changed. */
  async function changed(family: string, change: (folder: string) => Promise<void>): Promise<string> {
    const folder = await mkdtemp(join(scratch, `${family}-`));
    await cp(join(models, family), folder, { recursive: true });
    await change(folder);
    return folder;
  }
  const patch = (name: string, values: Record<string, unknown>) => async (folder: string) => {
    const path = join(folder, name);
    await writeFile(path, JSON.stringify({ ...JSON.parse(await readFile(path, "utf8")), ...values }));
  };
  async function refusal(folder: string): Promise<string> {
    const error: unknown = await loadModelFiles(folder).then(
      () => undefined,
      (error) => error,
    );
    expect(error).toBeInstanceOf(UserError);
    const message = error instanceof UserError ? error.message : "";
    expect(message).not.toContain("\n");
    expect(message).toContain(folder);
    return message;
  }

  it("nothing at the path", async () => {
    await expect(loadModelFiles(join(scratch, "absent"))).rejects.toThrow(/no such file or folder/);
    await expect(loadModelFiles("some/name")).rejects.toThrow(/rifft pull some\/name/);
  });

  it("a missing shard", async () => {
    const folder = await changed("qwen2", (folder) => unlink(join(folder, "model-00002-of-00002.safetensors")));
    expect(await refusal(folder)).toMatch(/shard model-00002-of-00002.safetensors is missing/);
  });

  it("no weights at all, and weights of another format", async () => {
    const folder = await changed("llama", (folder) => unlink(join(folder, "model.safetensors")));
    expect(await refusal(folder)).toMatch(/expected model.safetensors/);
    await writeFile(join(folder, "pytorch_model.bin"), "");
    expect(await refusal(folder)).toMatch(/found pytorch_model.bin; convert it to safetensors/);
  });

  it("a truncated shard", async () => {
    const folder = await changed("llama", (folder) => truncate(join(folder, "model.safetensors"), 50_000));
    expect(await refusal(folder)).toMatch(/expected \d+ bytes, found 50000/);
  });

  it("a missing config.json or tokenizer.json", async () => {
    for (const name of ["config.json", "tokenizer.json"]) {
      const folder = await changed("llama", (folder) => unlink(join(folder, name)));
      expect(await refusal(folder)).toContain(`no ${name}`);
    }
  });

  it.each([
    [
      "another architecture",
      { model_type: "mistral" },
      /"mistral" is not supported; expected one of llama, qwen2, qwen3/,
    ],
    ["another rope scaling", { rope_parameters: { rope_type: "yarn", factor: 4 } }, /rope scaling "yarn"/],
    ["incomplete rope scaling", { rope_parameters: { rope_type: "llama3", factor: 4 } }, /low_freq_factor/],
    ["a quantised checkpoint", { quantization_config: { quant_method: "gptq" } }, /quantisation "gptq"/],
    ["another activation", { hidden_act: "gelu" }, /hidden_act "gelu"/],
    ["biases", { attention_bias: true }, /attention_bias = true/],
    ["a wrong type", { hidden_size: "many" }, /config.json: hidden_size/],
    [
      "more rows than there are",
      { vocab_size: 301 },
      /embed_tokens.weight: expected dims \[301, 32\].*found \[300, 32\]/,
    ],
    ["another width", { hidden_size: 40 }, /expected dims \[300, 40\] from the config, found \[300, 32\]/],
    ["a layer more", { num_hidden_layers: 3 }, /model.layers.2.input_layernorm.weight with dims \[32\] is missing/],
    ["a layer less", { num_hidden_layers: 1 }, /model.layers.1.\S+ has no place/],
    ["an untied head", { tie_word_embeddings: false }, /lm_head.weight with dims \[300, 32\] is missing/],
    [
      "a vocabulary below the tokenizer's",
      { vocab_size: 299, eos_token_id: 1 },
      /tokenizer has 300 ids.*only 299 rows|beyond/,
    ],
    ["heads that do not divide", { num_key_value_heads: 3 }, /4 heads are not a multiple of 3/],
  ])("a config with %s", async (_, values, message) => {
    expect(await refusal(await changed("llama", patch("config.json", values)))).toMatch(message);
  });

  it("a tokenizer with more ids than the embedding has rows", async () => {
    const folder = await changed("llama", async (folder) => {
      const path = join(folder, "tokenizer.json");
      const json = z
        .looseObject({ added_tokens: z.array(z.unknown()) })
        .parse(JSON.parse(await readFile(path, "utf8")));
      json.added_tokens.push({ id: 300, content: "<one more>", special: true });
      await writeFile(path, JSON.stringify(json));
    });
    expect(await refusal(folder)).toMatch(/the tokenizer has 301 ids, but the embedding only 300 rows/);
  });

  it("a tokenizer.json or template that cannot be used", async () => {
    const broken = await changed("llama", (folder) => writeFile(join(folder, "tokenizer.json"), "{"));
    expect(await refusal(broken)).toMatch(/tokenizer.json: not valid JSON/);
    const merging = {
      pre_tokenizer: { type: "Split", pattern: { String: " " }, behavior: "MergedWithNext", invert: false },
    };
    expect(await refusal(await changed("llama", patch("tokenizer.json", merging)))).toMatch(/behavior MergedWithNext/);
    const template = await changed("llama", (folder) => writeFile(join(folder, "chat_template.jinja"), "{% if %}"));
    expect(await refusal(template)).toMatch(/chat template cannot be parsed/);
  });

  it("a dtype that is not read, though only where the tensor is needed", async () => {
    const folder = await changed("llama", async (folder) => {
      const path = join(folder, "model.safetensors");
      const header = await readFile(path);
      const text = header.toString("latin1").replace('"dtype":"F32"', '"dtype":"I32"');
      await writeFile(path, Buffer.from(text, "latin1"));
    });
    expect(await refusal(folder)).toMatch(/tensor \S+: dtype I32 is not supported/);
  });

  it("but a head that is tied and rotary tables, which old files carry, are passed over", async () => {
    const folder = await mkdtemp(join(scratch, "extra-"));
    await cp(join(models, "llama"), folder, { recursive: true });
    const files = await loadModelFiles(folder);
    const shapes = new Map<string, number[]>(tensorShapes(files.config))
      .set("lm_head.weight", [300, 32])
      .set("model.layers.0.self_attn.rotary_emb.inv_freq", [4]);
    const plan = new Map([...shapes].map(([name, dims]) => [name, { dims, type: "f32" as const }]));
    const writer = await SafetensorsWriter.create(join(folder, "model.safetensors"), plan);
    for (const [name, dims] of shapes) {
      const bytes = files.tensors.get(name)?.bytes ?? new Uint8Array(4 * dims.reduce((a, b) => a * b, 1));
      await writer.write(name, bytes);
    }
    await writer.finish();
    const again = await loadModelFiles(folder);
    expect(again.tensors).toEqual(files.tensors);
  });
});
