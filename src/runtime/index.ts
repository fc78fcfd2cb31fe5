export { memory, type Memory } from "./memory.ts";
export { PrepackedWeights, Runtime, type RuntimeOptions, type SessionOptions } from "./runtime.ts";
export { type Call, type Session } from "./session.ts";
export { threadCount } from "./threads.ts";
export { allocate, Value, type ArrayOf, type ElementType, type TypedArray } from "./value.ts";
