/** A known size, or the name of a symbolic one. Products and sums of symbols are spelled "b*s" and "b+s". */
export type Dim = number | string;

export const showDims = (dims: readonly Dim[]): string => `[${dims.join(", ")}]`;

export const sameDims = (a: readonly Dim[], b: readonly Dim[]): boolean =>
  a.length === b.length && a.every((dim, i) => dim === b[i]);

/** The shape that numpy's broadcasting gives; equal symbols are equal sizes, different symbols don't broadcast. */
export function broadcastDims(a: readonly Dim[], b: readonly Dim[], what: string): Dim[] {
  const rank = Math.max(a.length, b.length);
  return Array.from({ length: rank }, (_, i) => {
    const x = a[a.length - rank + i] ?? 1;
    const y = b[b.length - rank + i] ?? 1;
    if (x !== y && x !== 1 && y !== 1) {
      throw new Error(`${what}: shapes ${showDims(a)} and ${showDims(b)} don't broadcast (${x} against ${y})`);
    }
    return x === 1 ? y : x;
  });
}

/** Throws unless an array of shape `from` broadcasts to exactly `to`. */
export function requireBroadcast(from: readonly Dim[], to: readonly Dim[], what: string): void {
  if (!sameDims(broadcastDims(from, to, what), to)) {
    throw new Error(`${what}: shape ${showDims(from)} doesn't broadcast to ${showDims(to)}`);
  }
}

/** The known factor of a product of sizes, and its symbolic factors in order of their names. */
function factors(dims: readonly Dim[]): { known: number; symbols: string[] } {
  let known = 1;
  const symbols: string[] = [];
  for (const dim of dims) {
    for (const factor of typeof dim === "number" ? [dim] : dim.split("*")) {
      if (Number.isFinite(Number(factor))) known *= Number(factor);
      else symbols.push(String(factor));
    }
  }
  return { known, symbols: symbols.sort() };
}

/** One dimension that holds as much as several, e.g. [2, "b", 3, "s"] -> "6*b*s". */
export function productDim(dims: readonly Dim[]): Dim {
  const { known, symbols } = factors(dims);
  if (known === 0 || symbols.length === 0) return known;
  return known === 1 ? symbols.join("*") : [known, ...symbols].join("*");
}

/** True when two shapes surely hold different numbers of elements; unknown symbols get the benefit of the doubt. */
export function sizesDiffer(a: readonly Dim[], b: readonly Dim[]): boolean {
  const left = factors(a);
  const right = factors(b);
  const symbols = [...right.symbols];
  const unmatched = left.symbols.filter((symbol) => {
    const at = symbols.indexOf(symbol);
    if (at >= 0) symbols.splice(at, 1);
    return at < 0;
  });
  return unmatched.length === 0 && symbols.length === 0 && left.known !== right.known;
}

/** What a symbol counts for where sizes are weighed against each other. */
const TYPICAL_SYMBOL = 256;

/** Elements of a shape, each symbol at a typical value: good enough to compare two shapes. */
export function typicalSize(dims: readonly Dim[]): number {
  const { known, symbols } = factors(dims);
  return known * TYPICAL_SYMBOL ** symbols.length;
}

/** The size of joined parts: a number when all are, else their sum spelled out. */
export function sumDim(parts: readonly Dim[]): Dim {
  const known = parts.filter((part) => typeof part === "number").reduce((sum, part) => sum + part, 0);
  const symbols = parts.filter((part) => typeof part === "string");
  return symbols.length === 0 ? known : [...symbols, ...(known > 0 ? [known] : [])].join("+");
}

/** A non-negative axis, or an error that shows the shape. */
export function axisOf(axis: number, dims: readonly Dim[], what: string): number {
  const at = axis < 0 ? axis + dims.length : axis;
  if (!Number.isInteger(at) || at < 0 || at >= dims.length) {
    throw new Error(`${what}: axis ${axis} does not exist in shape ${showDims(dims)}`);
  }
  return at;
}
