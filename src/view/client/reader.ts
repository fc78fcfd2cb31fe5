/// <reference lib="dom" />
import type { BlockJson, Numbers } from "../blocks.ts";
import type { ViewTree } from "../types.ts";

/** Reads what the page embeds; a block is decoded when it is first asked for. */
export function makeReader(page: Document) {
  const kinds = { u8: Uint8Array, i32: Int32Array, f32: Float32Array, f64: Float64Array };
  const texts = new Map<number, Promise<ViewTree[]>>();
  const numbers = new Map<number, Promise<Record<string, Numbers>>>();
  /** Blocks of numbers that stay decoded. */
  const KEPT = 24;

  function bytesOf(base64: string): Uint8Array<ArrayBuffer> {
    const binary = atob(base64);
    const bytes = new Uint8Array(binary.length);
    for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
    return bytes;
  }

  async function read<T>(id: string): Promise<{ data: T; arrays: Record<string, Numbers> }> {
    const source = page.getElementById(id)?.textContent;
    if (source === undefined || source === null) throw new Error(`the page lacks its block ${id}: it was cut off`);
    const stream = new Blob([bytesOf(source)]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
    const buffer = await new Response(stream).arrayBuffer();
    const length = new DataView(buffer).getUint32(0, true);
    const json: BlockJson<T> = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
    const arrays = Object.entries(json.arrays).map(([name, [type, offset, size]]): [string, Numbers] => [
      name,
      new kinds[type](buffer, 4 + length + offset, size),
    ]);
    return { data: json.data, arrays: Object.fromEntries(arrays) };
  }

  return {
    read,
    texts(block: number): Promise<ViewTree[]> {
      const known = texts.get(block) ?? read<ViewTree[]>(`texts-${block}`).then(({ data }) => data);
      texts.set(block, known);
      return known;
    },
    numbers(block: number): Promise<Record<string, Numbers>> {
      const known = numbers.get(block) ?? read<null>(`numbers-${block}`).then(({ arrays }) => arrays);
      numbers.delete(block);
      numbers.set(block, known);
      for (const oldest of numbers.keys()) {
        if (numbers.size <= KEPT) break;
        numbers.delete(oldest);
      }
      return known;
    },
  };
}

export type Reader = ReturnType<typeof makeReader>;
