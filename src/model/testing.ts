import type { ExportTensor } from "./export.ts";
import { elementCount } from "./storage.ts";
import type { ModelFiles } from "./types.ts";
import { widen } from "./widen.ts";

/** A model's weights one at a time, last first: an export must not care. */
export function* weightsOf(files: ModelFiles): Generator<[string, ExportTensor]> {
  for (const [name, tensor] of [...files.tensors].reverse()) {
    const data = new Float32Array(elementCount(tensor.dims));
    widen(tensor, data);
    yield [name, { dims: tensor.dims, data }];
  }
}
