import type { ModelFiles } from "../../model/types.ts";
import type { HeadSpec, ModelSpec } from "../types.ts";
import { floats } from "./buffers.ts";
import { linearDims, type LinearName, moduleName, tensorOrder, tokenRows, vocabMatrices } from "./layers.ts";
import { adapterNames } from "./weights.ts";

export interface ParameterShape {
  name: string;
  dims: number[];
  /** "body", "tokens" or "head:<name>": which settings the optimizer uses. */
  group: string;
  /** Rows that are of group "tokens" instead. */
  tokens?: Int32Array;
}

export interface Parameter extends ParameterShape {
  /** Place in the arena, in floats. */
  offset: number;
  length: number;
}

/**
 * The trained tensors in one arena each for values, gradients and the two moments of Adam, so that clipping and updates are
 * sweeps over memory. Matrices stand before vectors in each group: weight decay takes matrices alone.
 */
export class Parameters {
  readonly entries: readonly Parameter[];
  readonly length: number;
  readonly values: Float32Array;
  /** Optimizer steps taken. */
  step = 0;
  /** Whether the gradients may be other than zero: whoever asks for them may write there. */
  private touched = false;
  private gradients: Float32Array | null = null;
  private moments: { first: Float32Array; second: Float32Array } | null = null;
  private readonly byName: Map<string, Parameter>;

  constructor(shapes: ParameterShape[]) {
    let offset = 0;
    this.entries = shapes.map((shape) => {
      const length = shape.dims.reduce((a, b) => a * b, 1);
      const entry = { ...shape, offset, length };
      offset += length;
      return entry;
    });
    this.length = offset;
    this.values = floats(offset);
    this.byName = new Map(this.entries.map((entry) => [entry.name, entry]));
  }

  value(name: string): Float32Array {
    return this.view(this.values, name);
  }

  /** The gradient summed so far. */
  gradient(name: string): Float32Array {
    return this.view(this.grads(), name);
  }

  grads(): Float32Array {
    this.touched = true;
    return (this.gradients ??= floats(this.length));
  }

  /** Adam's moments, zero before the first step. */
  adam(): { first: Float32Array; second: Float32Array } {
    return (this.moments ??= { first: floats(this.length), second: floats(this.length) });
  }

  get hasMoments(): boolean {
    return this.moments !== null;
  }

  /** To be called when all gradients have been set to zero. */
  cleared(): void {
    this.touched = false;
  }

  discard(): void {
    if (this.touched) this.gradients?.fill(0);
    this.touched = false;
  }

  /** Values, gradients and moments as they are in new parameters. */
  reset(): void {
    this.values.fill(0);
    this.discard();
    this.moments?.first.fill(0);
    this.moments?.second.fill(0);
    this.step = 0;
  }

  /** A parameter's part of an arena in this layout, such as a snapshot. */
  view(arena: Float32Array, name: string): Float32Array {
    const entry = this.byName.get(name);
    if (!entry) throw new Error(`no trained parameter ${name}`);
    return arena.subarray(entry.offset, entry.offset + entry.length);
  }
}

/** What a model trains; `targets` are the linear layers with an adapter. */
export function parameterShapes(
  files: ModelFiles,
  spec: ModelSpec,
  targets: ReadonlySet<LinearName>,
): ParameterShape[] {
  const { config, added } = files;
  const shapes: ParameterShape[] = [];
  if (spec.train === "full") {
    const byToken = new Set(vocabMatrices(config));
    for (const tensor of tensorOrder(config)) {
      shapes.push({ ...tensor, group: "body", ...(byToken.has(tensor.name) && added ? { tokens: added.ids } : {}) });
    }
  }
  if (typeof spec.train === "object") {
    const { rank } = spec.train.lora;
    const dims = linearDims(config);
    for (let layer = 0; layer < config.layers; layer++) {
      for (const linear of targets) {
        const names = adapterNames(moduleName(layer, linear));
        shapes.push({ name: names.a, dims: [rank, dims[linear][1]], group: "body" });
        shapes.push({ name: names.b, dims: [dims[linear][0], rank], group: "body" });
      }
    }
    for (const matrix of added ? vocabMatrices(config) : []) {
      shapes.push({ name: tokenRows(matrix), dims: [added?.ids.length ?? 0, config.hidden], group: "tokens" });
    }
  }
  for (const head of spec.heads ?? []) shapes.push(...headShapes(head, config.hidden));
  return shapes;
}

const headShapes = ({ name, width, bias }: HeadSpec, hidden: number): ParameterShape[] => [
  { name: `${name}.weight`, dims: [width, hidden], group: `head:${name}` },
  ...(bias ? [{ name: `${name}.bias`, dims: [width], group: `head:${name}` }] : []),
];
