import { library, type Pointer } from "./library.ts";

/** Element types: ONNX's number for each, and the array that holds it (16-bit floats as their bit patterns). */
const ELEMENTS = {
  float32: [1, Float32Array],
  uint8: [2, Uint8Array],
  int8: [3, Int8Array],
  uint16: [4, Uint16Array],
  int32: [6, Int32Array],
  int64: [7, BigInt64Array],
  bool: [9, Uint8Array],
  float16: [10, Uint16Array],
  float64: [11, Float64Array],
  bfloat16: [16, Uint16Array],
} as const;

export type ElementType = keyof typeof ELEMENTS;
type ArrayConstructorOf<T extends ElementType> = (typeof ELEMENTS)[T][1];
export type ArrayOf<T extends ElementType> = InstanceType<ArrayConstructorOf<T>>;
export type TypedArray =
  Float32Array | Float64Array | Int32Array | BigInt64Array | Uint8Array | Int8Array | Uint16Array;

const ALIGNMENT = 64;
const HUGE_PAGE = 2 ** 21;

/**
 * A zeroed array whose memory is aligned to 64 bytes, the widest vector register. Arrays of several megabytes ask for huge
 * pages where the system has them.
 */
export function allocate<T extends ElementType>(type: T, length: number): ArrayOf<T>;
export function allocate(type: ElementType, length: number): TypedArray {
  const construct = ELEMENTS[type][1];
  const bytes = length * construct.BYTES_PER_ELEMENT;
  const buffer = new ArrayBuffer(bytes + ALIGNMENT);
  const native = library();
  const start = native.addressOf(buffer);
  if (bytes >= 2 * HUGE_PAGE) {
    const first = roundUp(start, HUGE_PAGE);
    const size = Math.floor((bytes - Number(first - start)) / HUGE_PAGE) * HUGE_PAGE;
    native.adviseHugePages(first, size);
  }
  return new construct(buffer, Number(roundUp(start, ALIGNMENT) - start), length);
}

function roundUp(address: Pointer, multiple: number): Pointer {
  const m = BigInt(multiple);
  return ((address + m - 1n) / m) * m;
}

/**
 * A native object with a count of its users: what made it, running calls, and objects that need it. The last one to drop it
 * releases it, then drops what it needed itself; so a release during a run takes effect when the run ends.
 */
export class Handle {
  readonly pointer: Pointer;
  readonly #kind: "Session" | "Value" | "PrepackedWeightsContainer";
  readonly #needs: readonly Handle[];
  #users = 1;

  constructor(
    kind: "Session" | "Value" | "PrepackedWeightsContainer",
    pointer: Pointer,
    needs: readonly Handle[] = [],
  ) {
    this.pointer = pointer;
    this.#kind = kind;
    this.#needs = needs;
    for (const need of needs) need.retain();
  }

  retain(): void {
    this.#users++;
  }

  drop(): void {
    if (--this.#users > 0) return;
    library().release(this.#kind, this.pointer);
    for (const need of this.#needs) need.drop();
  }
}

const forgotten = new FinalizationRegistry<Handle>((handle) => handle.drop());

/** Drops `handle` when `owner` is collected, unless `disown` comes first. */
export function own(owner: object, handle: Handle): void {
  forgotten.register(owner, handle, owner);
}

export function disown(owner: object, handle: Handle): void {
  forgotten.unregister(owner);
  handle.drop();
}

let cpuMemory: Pointer | undefined;
export function cpuMemoryInfo(): Pointer {
  return (cpuMemory ??= library().make("CreateCpuMemoryInfo", 0, 0)); // device allocator, default memory: never released
}

/** The native tensor behind a value: for the rest of this room only. */
export let nativeValue: (value: Value) => Handle;
/** Throws where a run would touch memory that is gone, or a value that was released. */
export let assertUsable: (value: Value, name: string) => void;
/** Throws where a run would touch memory that is gone. */
export let assertAttached: (value: Value, name: string) => void;

/**
 * A tensor over the memory of a typed array, which is not copied: what JavaScript writes there the next run reads, and what a
 * run writes there JavaScript reads. Views (`subarray`) of a larger array are fine.
 */
export class Value {
  readonly data: TypedArray;
  readonly dims: readonly number[];
  readonly type: ElementType;
  readonly #length: number;
  readonly #handle: Handle;
  #released = false;

  /**
   * @param dims row-major shape; its product is the array's length ([] for a scalar)
   * @param type only where the array leaves it open: "bool" for Uint8Array, "float16" or "bfloat16" for Uint16Array
   */
  constructor(data: TypedArray, dims: readonly number[], type: ElementType = elementType(data)) {
    const [code, construct] = ELEMENTS[type];
    if (!(data instanceof construct)) {
      throw new Error(`a ${type} value needs a ${construct.name}, found a ${data.constructor.name}`);
    }
    if (!dims.every((dim) => Number.isSafeInteger(dim) && dim >= 0)) {
      throw new Error(`a shape needs non-negative integers, found [${dims.join(", ")}]`);
    }
    const length = dims.reduce((product, dim) => product * dim, 1);
    if (length !== data.length) {
      throw new Error(`shape [${dims.join(", ")}] needs ${length} elements, found an array of shape [${data.length}]`);
    }
    this.data = data;
    this.dims = [...dims];
    this.type = type;
    this.#length = length;
    void data.buffer; // moves a tiny array out of the garbage-collected heap, where its address would change
    const shape = BigInt64Array.from(dims.length ? dims : [0], BigInt);
    const native = library();
    this.#handle = new Handle(
      "Value",
      native.make("CreateTensorWithDataAsOrtValue", cpuMemoryInfo(), data, data.byteLength, shape, dims.length, code),
    );
    own(this, this.#handle);
  }

  /** Ends the use of this value; a run under way or a session that reads it keeps what it needs. */
  release(): void {
    if (this.#released) return;
    this.#released = true;
    disown(this, this.#handle);
  }

  static {
    nativeValue = (value) => value.#handle;
    assertUsable = (value, name) => {
      if (value.#released) throw new Error(`value "${name}" was released`);
      assertAttached(value, name);
    };
    assertAttached = (value, name) => {
      if (value.data.length === value.#length) return;
      throw new Error(`the memory of value "${name}" [${value.dims.join(", ")}] was transferred away or resized`);
    };
  }
}

function elementType(data: TypedArray): ElementType {
  for (const [type, [, construct]] of Object.entries(ELEMENTS) as [ElementType, (typeof ELEMENTS)[ElementType]][]) {
    if (data instanceof construct) return type;
  }
  throw new Error(`no tensor can stand on a ${(data as object).constructor.name}`);
}
