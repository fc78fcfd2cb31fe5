import { broadcastDims, requireBroadcast, sameDims, showDims, type Dim } from "./dims.ts";
import {
  encodeModel,
  type Attribute,
  type DType,
  type ExternalData,
  type InitializerProto,
  type ValueProto,
} from "./proto.ts";

/** A value of a graph: a name, a shape, an element type. It holds no numbers. */
export class Tensor {
  readonly graph: Graph;
  readonly name: string;
  readonly dims: readonly Dim[];
  readonly type: DType;
  /** Whether gradients flow through here; setting it to false detaches what was computed so far. */
  needsGrad: boolean;

  constructor(graph: Graph, name: string, dims: readonly Dim[], type: DType, needsGrad: boolean) {
    this.graph = graph;
    this.name = name;
    this.dims = dims;
    this.type = type;
    this.needsGrad = needsGrad;
  }

  get rank(): number {
    return this.dims.length;
  }
}

/** A gradient that is only computed when somebody wants it. It may have fewer or unit dims where its input's broadcast. */
export type Gradient = () => Tensor;

/**
 * The chain rule of one step: from the gradients of its outputs (null where none arrived; at least one did) to one entry an
 * input, null where there is no gradient.
 */
export type Rule = (gradients: (Tensor | null)[]) => (Gradient | null)[];

export interface GraphNode {
  readonly op: string;
  readonly domain: string;
  readonly inputs: readonly (Tensor | null)[];
  readonly outputs: readonly Tensor[];
  readonly attributes: Readonly<Record<string, Attribute>>;
}

export interface NamedTensor {
  name: string;
  tensor: Tensor;
}

export interface NodeOptions {
  /** "" (ONNX itself) when absent. */
  domain?: string;
  /** Without one, differentiating through the node is an error. */
  backward?: Rule;
  /** The rule accepts gradients that merely broadcast to the outputs' shape, and so needs no expanded copy. */
  broadcastGradients?: true;
}

/** What the chain rule sees: a node, or several that share one rule. */
interface Step {
  what: string;
  inputs: readonly (Tensor | null)[];
  outputs: readonly Tensor[];
  rule: Rule | undefined;
  broadcastGradients: boolean;
}

export type Data = readonly number[] | Float32Array | Float64Array | Int32Array | BigInt64Array | Uint8Array;

/**
 * Records operators as they are called and appends those of the backward pass; `build` serialises the result as an ONNX model.
 * Shapes are checked while recording, so that an error points to the line that made it.
 */
export class Graph {
  /** The type of every float tensor without its own. */
  readonly float: "float32" | "float64";
  /** Only ONNX's own operators of version 18, for other programs' runtimes; else the fastest that ONNX Runtime has. */
  readonly portable: boolean;
  readonly nodes: GraphNode[] = [];
  readonly inputs: Tensor[] = [];
  readonly outputs: (NamedTensor & { backward: boolean })[] = [];
  /** How many nodes the forward pass has; undefined until `backward` is called. */
  forwardNodes: number | undefined;
  /** Initializers by name; null data is bound when the session is created. */
  readonly initializers = new Map<string, InitializerProto>();
  #steps: Step[] = [];
  #memo = new Map<string, Tensor>();
  #names = new Set<string>();
  #counter = 0;
  /** Above 0 nothing is recorded for the chain rule. */
  #silent = 0;

  constructor(float: "float32" | "float64" = "float32", options: { portable?: boolean } = {}) {
    this.float = float;
    this.portable = options.portable ?? false;
  }

  /** A value that is bound at every run. `grad`: may be differentiated with respect to. */
  input(name: string, dims: readonly Dim[], options: { type?: DType; grad?: boolean } = {}): Tensor {
    this.#claim(name);
    const tensor = new Tensor(this, name, dims, options.type ?? this.float, options.grad ?? false);
    this.inputs.push(tensor);
    return tensor;
  }

  /** A constant whose data is bound by name when the session is created. */
  weight(name: string, dims: readonly number[], type: DType = this.float): Tensor {
    this.#claim(name);
    this.initializers.set(name, { name, type, dims, data: null });
    return new Tensor(this, name, dims, type, false);
  }

  /** A constant embedded in the model. */
  constant(data: Data, dims: readonly number[], type: DType = this.float): Tensor {
    const size = dims.reduce((product, dim) => product * dim, 1);
    if (data.length !== size) throw new Error(`constant: ${data.length} values for shape ${showDims(dims)}`);
    const name = this.#fresh("constant");
    this.initializers.set(name, { name, type, dims, data: toBytes(data, type) });
    return new Tensor(this, name, dims, type, false);
  }

  scalar(value: number, type: DType = this.float): Tensor {
    return this.#memoised(`${type} ${Object.is(value, -0) ? "-0" : value}`, () => this.constant([value], [], type));
  }

  /** A list of int64: a shape, axes, sizes. */
  ints(values: readonly number[]): Tensor {
    return this.#memoised(`ints ${values.join()}`, () => this.constant(values, [values.length], "int64"));
  }

  /** The run-time shape of a tensor as int64 [rank]; a constant where it is known. */
  shape(of: Tensor): Tensor {
    if (of.dims.every((dim) => typeof dim === "number")) return this.ints(of.dims);
    return this.#memoised(`shape ${of.name}`, () => this.node("Shape", [of], [{ dims: [of.rank], type: "int64" }])[0]);
  }

  /** Names a result. Names given before `backward` belong to the forward part of a split, later ones to the backward. */
  output(name: string, tensor: Tensor): void {
    this.#own(tensor);
    this.#claim(name);
    this.outputs.push({ name, tensor, backward: this.forwardNodes !== undefined });
  }

  /** Appends an operator whose output shapes the caller knows. */
  node(
    op: string,
    inputs: readonly (Tensor | null)[],
    outputs: readonly { dims: readonly Dim[]; type?: DType }[],
    attributes: Readonly<Record<string, Attribute>> = {},
    options: NodeOptions = {},
  ): Tensor[] {
    for (const input of inputs) if (input) this.#own(input);
    const made = outputs.map(
      ({ dims, type }) => new Tensor(this, this.#fresh(op.toLowerCase()), dims, type ?? this.float, false),
    );
    this.nodes.push({ op, domain: options.domain ?? "", inputs, outputs: made, attributes });
    this.#record(op, inputs, made, options.backward, options.broadcastGradients ?? false);
    return made;
  }

  /** Several nodes with one rule of their own: what `forward` records is not differentiated node by node. */
  composite(what: string, inputs: readonly Tensor[], forward: () => Tensor[], rule: Rule): Tensor[] {
    const made = this.#silently(forward);
    this.#record(what, inputs, made, rule, false);
    return made;
  }

  /**
   * Appends the backward pass (reverse mode). Each pair gives a tensor and the gradient that arrives there; returns the gradients
   * of `wrt`, each with its tensor's shape. Throws, naming the tensor, where no path leads to one.
   */
  backward(pairs: readonly (readonly [y: Tensor, dy: Tensor])[], wrt: readonly Tensor[]): Tensor[] {
    this.forwardNodes ??= this.nodes.length;
    return this.#silently(() => {
      const active = new Set<Tensor>();
      for (const tensor of wrt) {
        if (!tensor.needsGrad) throw new Error(`backward: "${tensor.name}" was made without grad: true`);
        active.add(tensor);
      }
      for (const step of this.#steps) {
        if (!step.inputs.some((input) => input && active.has(input))) continue;
        for (const output of step.outputs) if (output.needsGrad) active.add(output);
      }
      const gradients = new Map<Tensor, Tensor>();
      const accumulate = (tensor: Tensor, gradient: Tensor) => {
        requireBroadcast(gradient.dims, tensor.dims, `the gradient of "${tensor.name}"`);
        const before = gradients.get(tensor);
        gradients.set(tensor, before ? this.#add(before, gradient) : gradient);
      };
      for (const [y, dy] of pairs) accumulate(y, dy);
      for (const step of this.#steps.toReversed()) this.#propagate(step, active, gradients, accumulate);
      return wrt.map((tensor) => {
        const gradient = gradients.get(tensor);
        if (!gradient) throw new Error(`backward: no path leads from the given outputs to "${tensor.name}"`);
        return this.expandLike(gradient, tensor);
      });
    });
  }

  /**
   * Serialises the model; nodes and constants that no output needs are left out, inputs are all kept.
   * @param place where the data of weights is: the bytes themselves, or a place in a file. They are bound by name when absent
   */
  build(place?: (name: string) => Uint8Array | ExternalData): Uint8Array<ArrayBuffer> {
    if (this.outputs.length === 0) throw new Error("build: the graph has no outputs");
    const nodes = liveNodes(
      this.nodes,
      this.outputs.map((output) => output.tensor),
    );
    const foreign = nodes.find(({ domain }) => domain !== "");
    if (this.portable && foreign) throw new Error(`build: ${foreign.op} is not one of ONNX's own operators`);
    return encodeGraph(this, nodes, this.inputs, this.outputs, [], place);
  }

  /** A gradient in the full shape of its tensor. */
  expandLike(gradient: Tensor, like: Tensor): Tensor {
    if (sameDims(gradient.dims, like.dims)) return gradient;
    return this.node("Expand", [gradient, this.shape(like)], [{ dims: like.dims, type: gradient.type }])[0];
  }

  #propagate(
    step: Step,
    active: Set<Tensor>,
    gradients: Map<Tensor, Tensor>,
    accumulate: (tensor: Tensor, gradient: Tensor) => void,
  ): void {
    if (!step.inputs.some((input) => input && active.has(input))) return;
    const arrived = step.outputs.map((output) => (active.has(output) ? (gradients.get(output) ?? null) : null));
    if (arrived.every((gradient) => gradient === null)) return;
    if (!step.rule) throw new Error(`backward: ${step.what} has no gradient rule`);
    const full = arrived.map((gradient, i) =>
      gradient && !step.broadcastGradients ? this.expandLike(gradient, step.outputs[i]) : gradient,
    );
    step.rule(full).forEach((gradient, i) => {
      const input = step.inputs[i];
      if (input && gradient && active.has(input)) accumulate(input, gradient());
    });
  }

  #add(a: Tensor, b: Tensor): Tensor {
    return this.node("Add", [a, b], [{ dims: broadcastDims(a.dims, b.dims, "add"), type: a.type }])[0];
  }

  #record(
    what: string,
    inputs: readonly (Tensor | null)[],
    outputs: readonly Tensor[],
    rule: Rule | undefined,
    broadcastGradients: boolean,
  ): void {
    if (this.#silent > 0 || !inputs.some((input) => input?.needsGrad)) return;
    for (const output of outputs) output.needsGrad = output.type === "float32" || output.type === "float64";
    this.#steps.push({ what, inputs, outputs, rule, broadcastGradients });
  }

  #silently<T>(run: () => T): T {
    this.#silent++;
    try {
      return run();
    } finally {
      this.#silent--;
    }
  }

  #memoised(key: string, make: () => Tensor): Tensor {
    const known = this.#memo.get(key);
    if (known) return known;
    const made = make();
    this.#memo.set(key, made);
    return made;
  }

  #own(tensor: Tensor): void {
    if (tensor.graph !== this) throw new Error(`"${tensor.name}" belongs to another graph`);
  }

  #claim(name: string): void {
    if (name === "") throw new Error("a tensor needs a name");
    if (this.#names.has(name)) throw new Error(`the graph has two tensors named "${name}"`);
    this.#names.add(name);
  }

  #fresh(stem: string): string {
    let name: string;
    do name = `${stem}.${this.#counter++}`;
    while (this.#names.has(name));
    this.#names.add(name);
    return name;
  }
}

/** The nodes that some of the wanted tensors need, in their order. */
export function liveNodes(nodes: readonly GraphNode[], wanted: Iterable<Tensor>): GraphNode[] {
  const needed = new Set<Tensor>(wanted);
  const live: GraphNode[] = [];
  for (const node of nodes.toReversed()) {
    if (!node.outputs.some((output) => needed.has(output))) continue;
    for (const input of node.inputs) if (input) needed.add(input);
    live.push(node);
  }
  return live.reverse();
}

/** Serialises some nodes of a graph; `given` are values that other nodes made and that arrive as inputs under the given names. */
export function encodeGraph(
  graph: Graph,
  nodes: readonly GraphNode[],
  inputs: readonly Tensor[],
  outputs: readonly NamedTensor[],
  given: readonly NamedTensor[] = [],
  place?: (name: string) => Uint8Array | ExternalData,
): Uint8Array<ArrayBuffer> {
  const names = new Map(given.map(({ name, tensor }) => [tensor, name]));
  const made = new Set(nodes.flatMap((node) => node.outputs));
  const copies: { from: Tensor; to: string }[] = [];
  for (const { name, tensor } of outputs) {
    // A node's own result takes the output's name; anything else has to be copied under it.
    if (made.has(tensor) && !names.has(tensor)) names.set(tensor, name);
    else copies.push({ from: tensor, to: name });
  }
  const nameOf = (tensor: Tensor) => names.get(tensor) ?? tensor.name;
  const read = new Set([...nodes.flatMap((node) => node.inputs), ...copies.map((copy) => copy.from)]);
  const readNames = new Set([...read].map((tensor) => tensor?.name));
  const value = (name: string, { type, dims }: Tensor): ValueProto => ({ name, type, dims });
  return encodeModel({
    nodes: [
      ...nodes.map((node) => ({
        ...node,
        inputs: node.inputs.map((input) => (input ? nameOf(input) : "")),
        outputs: node.outputs.map(nameOf),
      })),
      ...copies.map(({ from, to }) => ({
        op: "Identity",
        domain: "",
        inputs: [nameOf(from)],
        outputs: [to],
        attributes: {},
      })),
    ],
    initializers: [...graph.initializers.values()]
      .filter(({ name }) => readNames.has(name))
      .map((initializer) => ({ ...initializer, data: initializer.data ?? place?.(initializer.name) ?? null })),
    inputs: [...inputs.map((tensor) => value(tensor.name, tensor)), ...given.map((g) => value(g.name, g.tensor))],
    outputs: outputs.map(({ name, tensor }) => value(name, tensor)),
    portable: graph.portable,
  });
}

function toBytes(data: Data, type: DType): Uint8Array {
  const array = toArray(data, type);
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}

function toArray(data: Data, type: DType): Exclude<Data, readonly number[]> {
  const numbers = () => Array.from(data, Number);
  switch (type) {
    case "float32":
      return data instanceof Float32Array ? data : Float32Array.from(numbers());
    case "float64":
      return data instanceof Float64Array ? data : Float64Array.from(numbers());
    case "int32":
      return data instanceof Int32Array ? data : Int32Array.from(numbers());
    case "int64":
      return data instanceof BigInt64Array ? data : BigInt64Array.from(numbers(), BigInt);
    case "bool":
    case "uint8":
      return data instanceof Uint8Array ? data : Uint8Array.from(numbers());
    default:
      throw new Error(`constant: ${type} can't be embedded; cast a float32 constant`);
  }
}
