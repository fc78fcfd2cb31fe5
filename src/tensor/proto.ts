import type { Dim } from "./dims.ts";

// The messages of onnx.proto3 that a graph needs; numbers are the field numbers of that file.

/** The numbers of TensorProto.DataType. */
export const ELEMENT_TYPE = {
  float32: 1,
  uint8: 2,
  int32: 6,
  int64: 7,
  bool: 9,
  float16: 10,
  float64: 11,
  bfloat16: 16,
} as const;
export type DType = keyof typeof ELEMENT_TYPE;

/** A number is an integer attribute, an array a list of integers. */
export type Attribute = number | string | readonly number[] | { readonly float: number };

export interface NodeProto {
  op: string;
  domain: string;
  inputs: string[];
  outputs: string[];
  attributes: Readonly<Record<string, Attribute>>;
}

export interface ValueProto {
  name: string;
  type: DType;
  dims: readonly Dim[];
}

export interface InitializerProto {
  name: string;
  type: DType;
  dims: readonly number[];
  /** null: bound by name when the session is created (external data). */
  data: Uint8Array | ExternalData | null;
}

/** Where an initializer's bytes lie: a file beside the model, and the place in it. */
export interface ExternalData {
  location: string;
  offset: number;
}

export interface GraphProto {
  nodes: NodeProto[];
  initializers: InitializerProto[];
  inputs: ValueProto[];
  outputs: ValueProto[];
  /** Only ONNX's own operators, in a version that runtimes have known for years. */
  portable: boolean;
}

/** The file that external initializers claim to live in; their data is bound by name and the file never read. */
const EXTERNAL_LOCATION = "weights";
/** Version of the file format, and of ONNX's operators. */
const CURRENT = { ir: 10, opset: 23 };
const PORTABLE = { ir: 8, opset: 18 };
const BYTES: Record<DType, number> = {
  float32: 4,
  float64: 8,
  float16: 2,
  bfloat16: 2,
  int64: 8,
  int32: 4,
  bool: 1,
  uint8: 1,
};
const ATTRIBUTE_TYPE = { float: 1, int: 2, string: 3, ints: 7 } as const;

/** Serialises a graph as an ONNX ModelProto. */
export function encodeModel(graph: GraphProto): Uint8Array<ArrayBuffer> {
  const body = new Writer();
  graph.nodes.forEach((node, i) => body.message(1, writeNode(node, `${node.op}_${i}`)));
  body.string(2, "rifft");
  for (const initializer of graph.initializers) body.message(5, writeInitializer(initializer));
  for (const input of graph.inputs) body.message(11, writeValue(input));
  for (const output of graph.outputs) body.message(12, writeValue(output));
  const opset = (domain: string, version: number) => new Writer().string(1, domain).int(2, version);
  const versions = graph.portable ? PORTABLE : CURRENT;
  const model = new Writer().int(1, versions.ir).string(2, "rifft").message(7, body);
  model.message(8, opset("", versions.opset));
  if (!graph.portable) model.message(8, opset("com.microsoft", 1));
  return model.bytes();
}

function writeNode(node: NodeProto, name: string): Writer {
  const writer = new Writer();
  for (const input of node.inputs) writer.string(1, input);
  for (const output of node.outputs) writer.string(2, output);
  writer.string(3, name).string(4, node.op);
  for (const [key, value] of Object.entries(node.attributes)) writer.message(5, writeAttribute(key, value));
  if (node.domain !== "") writer.string(7, node.domain);
  return writer;
}

function writeAttribute(name: string, value: Attribute): Writer {
  const writer = new Writer().string(1, name);
  if (typeof value === "number") return writer.int(3, value).int(20, ATTRIBUTE_TYPE.int);
  if (typeof value === "string") return writer.string(4, value).int(20, ATTRIBUTE_TYPE.string);
  if ("float" in value) return writer.float(2, value.float).int(20, ATTRIBUTE_TYPE.float);
  for (const item of value) writer.int(8, item);
  return writer.int(20, ATTRIBUTE_TYPE.ints);
}

function writeInitializer({ name, type, dims, data }: InitializerProto): Writer {
  const writer = new Writer();
  for (const dim of dims) writer.int(1, dim);
  writer.int(2, ELEMENT_TYPE[type]).string(8, name);
  if (data instanceof Uint8Array) return writer.blob(9, data);
  const entry = (key: string, value: string) => new Writer().string(1, key).string(2, value);
  const length = dims.reduce((product, dim) => product * dim, BYTES[type]);
  return writer
    .message(13, entry("location", data?.location ?? EXTERNAL_LOCATION))
    .message(13, entry("offset", String(data?.offset ?? 0)))
    .message(13, entry("length", String(length)))
    .int(14, 1);
}

function writeValue({ name, type, dims }: ValueProto): Writer {
  const shape = new Writer();
  for (const dim of dims) {
    shape.message(1, typeof dim === "number" ? new Writer().int(1, dim) : new Writer().string(2, dim));
  }
  const tensorType = new Writer().int(1, ELEMENT_TYPE[type]).message(2, shape);
  return new Writer().string(1, name).message(2, new Writer().message(1, tensorType));
}

/** Appends protocol buffer fields. */
class Writer {
  #parts: Uint8Array[] = [];
  #size = 0;

  int(field: number, value: number): this {
    return this.#varint(field << 3).#varint(value);
  }

  float(field: number, value: number): this {
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setFloat32(0, value, true);
    return this.#varint((field << 3) | 5).#raw(bytes);
  }

  string(field: number, value: string): this {
    return this.blob(field, new TextEncoder().encode(value));
  }

  blob(field: number, value: Uint8Array): this {
    return this.#varint((field << 3) | 2)
      .#varint(value.length)
      .#raw(value);
  }

  message(field: number, value: Writer): this {
    this.#varint((field << 3) | 2).#varint(value.#size);
    for (const part of value.#parts) this.#raw(part);
    return this;
  }

  bytes(): Uint8Array<ArrayBuffer> {
    const out = new Uint8Array(this.#size);
    let at = 0;
    for (const part of this.#parts) {
      out.set(part, at);
      at += part.length;
    }
    return out;
  }

  #raw(bytes: Uint8Array): this {
    this.#parts.push(bytes);
    this.#size += bytes.length;
    return this;
  }

  #varint(value: number): this {
    let rest = BigInt.asUintN(64, BigInt(value));
    const bytes: number[] = [];
    do {
      const low = Number(rest & 127n);
      rest >>= 7n;
      bytes.push(rest > 0n ? low | 128 : low);
    } while (rest > 0n);
    return this.#raw(Uint8Array.from(bytes));
  }
}
