import { existsSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { UserError } from "../errors.ts";
import { readGgufHeader, type GgufValue } from "./gguf.ts";
import { loadModelFiles } from "./load.ts";
import { elementCount } from "./storage.ts";
import { widen } from "./widen.ts";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "rifft-gguf-"));
});
afterAll(() => rm(folder, { recursive: true }));

const types = { f32: 0, f16: 1, q4_0: 2, q4_1: 3, q5_0: 6, q8_0: 8, bf16: 30 };
interface Tensor {
  /** Row-major, outermost first. */
  dims: number[];
  type: keyof typeof types;
  bytes: Uint8Array;
}

/** Writes little-endian GGUF 3: strings, numbers (as float64 unless they are integers) and lists of one of them. */
function ggufBytes(metadata: Record<string, GgufValue>, tensors: Record<string, Tensor>, version = 3): Buffer {
  const parts: Buffer[] = [];
  const u32 = (n: number) => parts.push(Buffer.from(Uint32Array.of(n).buffer));
  const u64 = (n: number) => parts.push(Buffer.from(BigInt64Array.of(BigInt(n)).buffer));
  const string = (text: string) => (u64(Buffer.byteLength(text)), parts.push(Buffer.from(text)));
  const typeOf = (value: GgufValue) =>
    Array.isArray(value)
      ? 9
      : typeof value === "string"
        ? 8
        : typeof value === "boolean"
          ? 7
          : Number.isInteger(value)
            ? 4
            : 12;
  const write = (value: GgufValue): void => {
    if (Array.isArray(value)) {
      u32(value.length > 0 ? typeOf(value[0]) : 4);
      u64(value.length);
      value.forEach(write);
    } else if (typeof value === "string") string(value);
    else if (typeof value === "boolean") parts.push(Buffer.of(value ? 1 : 0));
    else if (Number.isInteger(value)) u32(value);
    else parts.push(Buffer.from(Float64Array.of(value).buffer));
  };
  parts.push(Buffer.from("GGUF"));
  u32(version);
  u64(Object.keys(tensors).length);
  u64(Object.keys(metadata).length);
  for (const [key, value] of Object.entries(metadata)) {
    string(key);
    u32(typeOf(value));
    write(value);
  }
  const padded = (n: number) => Math.ceil(n / 32) * 32;
  let offset = 0;
  for (const [name, { dims, type, bytes }] of Object.entries(tensors)) {
    string(name);
    u32(dims.length);
    dims.toReversed().forEach(u64);
    u32(types[type]);
    u64(offset);
    offset += padded(bytes.length);
  }
  const header = Buffer.concat(parts);
  const data = Object.values(tensors).map(({ bytes }) =>
    Buffer.concat([bytes, Buffer.alloc(padded(bytes.length) - bytes.length)]),
  );
  return Buffer.concat([header, Buffer.alloc(padded(header.length) - header.length), ...data]);
}

const f32 = (dims: number[], value: (i: number) => number): Tensor => ({
  dims,
  type: "f32",
  bytes: new Uint8Array(Float32Array.from({ length: elementCount(dims) }, (_, i) => value(i)).buffer),
});

/** Byte-level letters, a merge, a control and a user-defined token. */
const alphabet = Array.from({ length: 94 }, (_, i) => String.fromCharCode(33 + i));
const tokens = ["<|endoftext|>", "<|im_end|>", ...alphabet, "\u0120", "ab", "<think>"];
const tokenizerData = {
  "tokenizer.ggml.model": "gpt2",
  "tokenizer.ggml.pre": "smollm",
  "tokenizer.ggml.tokens": tokens,
  "tokenizer.ggml.token_type": tokens.map((_, i) => (i < 2 ? 3 : i === tokens.length - 1 ? 4 : 1)),
  "tokenizer.ggml.merges": ["a b"],
  "tokenizer.ggml.bos_token_id": 0,
  "tokenizer.ggml.eos_token_id": 1,
  "tokenizer.chat_template": "{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}",
};

const [hidden, heads, kvHeads, headDim, inner, vocab] = [32, 2, 1, 16, 64, tokens.length];
function model(architecture: "llama" | "qwen2" | "qwen3") {
  const metadata: Record<string, GgufValue> = {
    "general.architecture": architecture,
    [`${architecture}.block_count`]: 1,
    [`${architecture}.context_length`]: 64,
    [`${architecture}.embedding_length`]: hidden,
    [`${architecture}.feed_forward_length`]: inner,
    [`${architecture}.attention.head_count`]: heads,
    [`${architecture}.attention.head_count_kv`]: kvHeads,
    [`${architecture}.attention.layer_norm_rms_epsilon`]: Math.fround(1e-5),
    ...tokenizerData,
  };
  const row = (i: number) => Math.floor(i / hidden);
  const tensors: Record<string, Tensor> = {
    "token_embd.weight": { dims: [vocab, hidden], type: "q8_0", bytes: new Uint8Array(vocab * 34).fill(1) },
    "output_norm.weight": f32([hidden], () => 1),
    "blk.0.attn_norm.weight": f32([hidden], () => 1),
    "blk.0.ffn_norm.weight": f32([hidden], () => 1),
    // Each row holds its own number.
    "blk.0.attn_q.weight": f32([heads * headDim, hidden], row),
    "blk.0.attn_k.weight": {
      dims: [kvHeads * headDim, hidden],
      type: "q4_1",
      bytes: numberedBlocks(kvHeads * headDim),
    },
    "blk.0.attn_v.weight": f32([kvHeads * headDim, hidden], row),
    "blk.0.attn_output.weight": f32([hidden, heads * headDim], row),
    "blk.0.ffn_gate.weight": f32([inner, hidden], row),
    "blk.0.ffn_up.weight": f32([inner, hidden], row),
    "blk.0.ffn_down.weight": f32([hidden, inner], (i) => i),
  };
  if (architecture === "qwen2") {
    tensors["blk.0.attn_q.bias"] = f32([heads * headDim], (i) => i);
    for (const name of ["k", "v"]) tensors[`blk.0.attn_${name}.bias`] = f32([kvHeads * headDim], (i) => i);
  }
  if (architecture === "qwen3") {
    for (const name of ["q", "k"]) tensors[`blk.0.attn_${name}_norm.weight`] = f32([headDim], () => 1);
  }
  return { metadata, tensors };
}

/** Rows of one q4_1 block with scale 0 and the row's number as minimum (float16 integers). */
function numberedBlocks(rows: number): Uint8Array {
  const bytes = new Uint8Array(rows * 20);
  for (let row = 1; row < rows; row++) {
    const exponent = Math.floor(Math.log2(row));
    const half = ((exponent + 15) << 10) | Math.round((row / 2 ** exponent - 1) * 1024);
    bytes.set([half & 255, half >> 8], row * 20 + 2);
  }
  return bytes;
}

async function save(name: string, bytes: Uint8Array): Promise<string> {
  const path = join(folder, name);
  await writeFile(path, bytes);
  return path;
}
const load = async (spec: ReturnType<typeof model>) =>
  loadModelFiles(await save("model.gguf", ggufBytes(spec.metadata, spec.tensors)));

/** What stands in the first column of each row. */
async function firstColumn(spec: ReturnType<typeof model>, name: string): Promise<number[]> {
  const tensor = (await load(spec)).tensors.get(name);
  if (!tensor) throw new Error(`no ${name}`);
  const values = new Float32Array(elementCount(tensor.dims));
  widen(tensor, values);
  const columns = tensor.dims.length > 1 ? tensor.dims[1] : 1;
  return Array.from({ length: tensor.dims[0] }, (_, i) => values[i * columns]);
}

/** Row r of the half-split layout stands, interleaved, in row 2r of the first half or 2r + 1 of the second. */
const halfSplit = (heads: number) =>
  Array.from({ length: heads }, (_, head) => [
    ...Array.from({ length: headDim / 2 }, (_, i) => head * headDim + 2 * i),
    ...Array.from({ length: headDim / 2 }, (_, i) => head * headDim + 2 * i + 1),
  ]).flat();
const inOrder = (n: number) => Array.from({ length: n }, (_, i) => i);

describe("a GGUF file", () => {
  it("gives config, tokenizer, template and tensors as stored", async () => {
    const { config, tensors, tokenizer, sidecars } = await load(model("llama"));
    expect(config).toMatchObject({
      hidden,
      heads,
      kvHeads,
      headDim,
      intermediate: inner,
      vocab,
      layers: 1,
      maxContext: 64,
    });
    expect(config).toMatchObject({ rmsEps: 1e-5, ropeTheta: 10000, tiedEmbeddings: true, bosId: 0, eosIds: [1, 0] });
    expect(tensors.get("model.embed_tokens.weight")?.type).toBe("q8_0");
    expect(tensors.get("model.layers.0.mlp.down_proj.weight")?.dims).toEqual([hidden, inner]);
    expect(tokenizer.renderChat([{ role: "user", content: "ab" }])).toBe("ab<|im_end|>");
    expect(Array.from(tokenizer.encode("ab c12<think>"))).toEqual(
      ["ab", "\u0120", "c", "1", "2", "<think>"].map((token) => tokens.indexOf(token)),
    );
    expect(tokenizer.encode("<|im_end|>")).not.toContain(1);
    expect([...sidecars.keys()]).toEqual([
      "config.json",
      "generation_config.json",
      "tokenizer.json",
      "tokenizer_config.json",
    ]);
  });

  it("has the rows of q and k put back in half-split order for llama, quantised ones too", async () => {
    expect(await firstColumn(model("llama"), "model.layers.0.self_attn.q_proj.weight")).toEqual(halfSplit(heads));
    expect(await firstColumn(model("llama"), "model.layers.0.self_attn.k_proj.weight")).toEqual(halfSplit(kvHeads));
    expect(await firstColumn(model("llama"), "model.layers.0.self_attn.v_proj.weight")).toEqual(
      inOrder(kvHeads * headDim),
    );
  });

  it("keeps the rows of qwen, which llama.cpp does not reorder", async () => {
    const qwen2 = await load(model("qwen2"));
    expect(qwen2.config).toMatchObject({ architecture: "qwen2", qkvBias: true, qkNorm: false });
    expect(await firstColumn(model("qwen2"), "model.layers.0.self_attn.q_proj.weight")).toEqual(
      inOrder(heads * headDim),
    );
    expect(await firstColumn(model("qwen2"), "model.layers.0.self_attn.q_proj.bias")).toEqual(inOrder(heads * headDim));
    expect((await load(model("qwen3"))).config).toMatchObject({ architecture: "qwen3", qkvBias: false, qkNorm: true });
  });

  it("reads Llama 3's rotary scaling from its table, and refuses another table", async () => {
    const spec = model("llama");
    spec.metadata["llama.rope.freq_base"] = 500000;
    const table = Array.from({ length: headDim / 2 }, (_, i) => {
      const turns = (8192 * 500000 ** (-(2 * i) / headDim)) / (2 * Math.PI);
      const smooth = (turns - 1) / 3;
      return turns > 4 ? 1 : turns < 1 ? 32 : 1 / ((1 - smooth) / 32 + smooth);
    });
    spec.tensors["rope_freqs.weight"] = f32([headDim / 2], (i) => table[i]);
    const expected = { factor: 32, lowFreqFactor: 1, highFreqFactor: 4, originalMaxContext: 8192 };
    expect((await load(spec)).config.ropeScaling).toEqual(expected);
    spec.tensors["rope_freqs.weight"] = f32([headDim / 2], (i) => 1 + i);
    await expect(load(spec)).rejects.toThrow(/rope_freqs.weight is not Llama 3's scaling/);
  });

  it.each<[string, (spec: ReturnType<typeof model>) => void, RegExp]>([
    ["architecture", ({ metadata }) => (metadata["general.architecture"] = "mamba"), /"mamba" is not supported/],
    [
      "quantisation",
      ({ tensors }) => (tensors["blk.0.attn_v.weight"].type = "q5_0"),
      /blk.0.attn_v.weight: quantisation q5_0 is not/,
    ],
    [
      "tokenizer",
      ({ metadata }) => (metadata["tokenizer.ggml.model"] = "llama"),
      /tokenizer type "llama" is not supported/,
    ],
    [
      "pre-tokenizer",
      ({ metadata }) => (metadata["tokenizer.ggml.pre"] = "tekken"),
      /pre-tokenizer "tekken" is not supported/,
    ],
    ["part", ({ metadata }) => (metadata["split.count"] = 3), /one of 3 parts/],
    ["rope scaling", ({ metadata }) => (metadata["llama.rope.scaling.type"] = "yarn"), /rope scaling "yarn"/],
    [
      "type of metadata",
      ({ metadata }) => (metadata["llama.block_count"] = "1"),
      /llama.block_count: expected a number/,
    ],
    [
      "number",
      ({ metadata }) => delete metadata["llama.embedding_length"],
      /embedding_length: expected a positive number, found nothing/,
    ],
    [
      "missing tensor",
      ({ tensors }) => delete tensors["blk.0.ffn_up.weight"],
      /model.layers.0.mlp.up_proj.weight .* is missing/,
    ],
    [
      "tensor",
      ({ tensors }) => (tensors["blk.0.ffn_gate_inp.weight"] = f32([2], () => 0)),
      /ffn_gate_inp.weight has no place/,
    ],
    ["number of layers", ({ metadata }) => (metadata["llama.block_count"] = 2 ** 31), /2147483648 layers/],
    [
      "shape",
      ({ tensors }) => (tensors["blk.0.attn_v.weight"] = f32([2, hidden], () => 0)),
      /v_proj.weight: expected dims \[16, 32\].*found \[2, 32\]/,
    ],
    [
      "vocabulary",
      ({ metadata }) => (metadata["tokenizer.ggml.tokens"] = [...tokens, "x1", "x2"]),
      /tokenizer has \d+ ids/,
    ],
  ])("is refused for an unsupported or wrong %s", async (_, change, message) => {
    const spec = model("llama");
    change(spec);
    await expect(load(spec)).rejects.toThrow(UserError);
    await expect(load(spec)).rejects.toThrow(message);
  });
});

describe("bytes that are no whole GGUF file", () => {
  it("are a UserError at every truncation", async () => {
    const tensors = { "a.weight": f32([2, 3], (i) => i) };
    const whole = ggufBytes({ name: "x", list: ["a", "b"], nested: [[1, 2], [3]], yes: true, half: 0.5 }, tensors);
    const header = await readGgufHeader(await save("whole.gguf", whole));
    expect(header.metadata.get("nested")).toEqual([[1, 2], [3]]);
    expect(header.metadata.get("half")).toBe(0.5);
    // The last tensor's padding may go.
    for (let length = 0; length < whole.length - 8; length++) {
      const cut = await save("cut.gguf", whole.subarray(0, length));
      const error: unknown = await readGgufHeader(cut).catch((error) => error);
      expect(error).toBeInstanceOf(UserError);
      if (length >= 4) expect(String(error)).toMatch(/truncated/);
    }
  });

  it("are a UserError or a header, never a crash or a hang", async () => {
    const { metadata, tensors } = model("llama");
    const whole = ggufBytes(metadata, tensors);
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.nat(4000), fc.nat(255)), { minLength: 1, maxLength: 5 }),
        async (changes) => {
          const bytes = Buffer.from(whole);
          for (const [at, value] of changes) bytes[at] = value;
          const path = await save("noise.gguf", bytes);
          await loadModelFiles(path).catch((error) => expect(error).toBeInstanceOf(UserError));
        },
      ),
      { numRuns: 300 },
    );
  });

  it("name another version", async () => {
    await expect(readGgufHeader(await save("v1.gguf", ggufBytes({}, {}, 1)))).rejects.toThrow(
      /version 1 is not supported/,
    );
    await expect(readGgufHeader(await save("no.gguf", Buffer.from("PK\u0003\u0004....")))).rejects.toThrow(
      /not a GGUF file/,
    );
  });
});

const real = resolve(
  import.meta.dirname,
  "..",
  "..",
  process.env.RIFFT_SHARED ?? "../shared",
  "models",
  "smollm2-135m-instruct.Q4_1.gguf",
);
describe.skipIf(!existsSync(real))(`SmolLM2-135M-Instruct (skipped without ${real})`, () => {
  it("is whole", async () => {
    const { config, tensors } = await loadModelFiles(real);
    expect(config).toMatchObject({
      layers: 30,
      hidden: 576,
      heads: 9,
      kvHeads: 3,
      headDim: 64,
      intermediate: 1536,
      vocab: 49152,
    });
    expect(config).toMatchObject({
      ropeTheta: 100000,
      rmsEps: 1e-5,
      maxContext: 8192,
      tiedEmbeddings: true,
      eosIds: [2, 0],
    });
    let parameters = 0;
    const out = new Float32Array(49152 * 576);
    for (const tensor of tensors.values()) {
      const count = elementCount(tensor.dims);
      widen(tensor, out);
      let squares = 0;
      for (let i = 0; i < count; i++) squares += out[i] * out[i];
      // Neither zero nor wild: a wrong offset or layout of blocks would show.
      expect(Math.sqrt(squares / count)).toBeGreaterThan(0.005);
      expect(Math.sqrt(squares / count)).toBeLessThan(20);
      parameters += count;
    }
    expect(parameters).toBe(134_515_008);
  });
});
