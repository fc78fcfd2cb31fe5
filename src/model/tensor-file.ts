import { open, type FileHandle } from "node:fs/promises";
import { systemError, writeRange } from "./files.ts";

/** In bytes from the start of the file; `end` is exclusive. */
export interface ByteRange {
  start: number;
  end: number;
}

/** Writes a file whose tensors arrive one at a time, in any order; each must arrive once. */
export class TensorFileWriter {
  private readonly file: FileHandle;
  private readonly path: string;
  private readonly pending: Map<string, ByteRange>;

  protected constructor(file: FileHandle, path: string, ranges: ReadonlyMap<string, ByteRange>) {
    this.file = file;
    this.path = path;
    this.pending = new Map(ranges);
  }

  /**
   * @param header what stands before the tensors
   * @param ranges where each tensor will lie
   * @param size of the whole file; a file may end with padding. Where its last tensor ends when absent
   */
  static async open(
    path: string,
    header: Uint8Array,
    ranges: ReadonlyMap<string, ByteRange>,
    size?: number,
  ): Promise<TensorFileWriter> {
    return new TensorFileWriter(await begin(path, header, size), path, ranges);
  }

  async write(name: string, bytes: Uint8Array): Promise<void> {
    const range = this.pending.get(name);
    if (!range) throw new Error(`tensor ${name} was not announced or came twice`);
    if (bytes.length !== range.end - range.start) {
      throw new Error(`tensor ${name}: announced ${range.end - range.start} bytes, got ${bytes.length}`);
    }
    this.pending.delete(name);
    try {
      await writeRange(this.file, bytes, range.start);
    } catch (error) {
      throw systemError(`cannot write ${this.path}`, error);
    }
  }

  /** Flushes to the disk and closes; throws where an announced tensor never came. */
  async finish(): Promise<void> {
    const [missing] = this.pending.keys();
    if (missing !== undefined) throw new Error(`tensor ${missing} was announced but never written`);
    try {
      await this.file.sync();
    } catch (error) {
      throw systemError(`cannot write ${this.path}`, error);
    }
    await this.close();
  }

  /** Closes without a check, after an error. */
  async close(): Promise<void> {
    await this.file.close();
  }
}

/** Opens a new file that begins with `header`. */
export async function begin(path: string, header: Uint8Array, size?: number): Promise<FileHandle> {
  let file: FileHandle | undefined;
  try {
    file = await open(path, "w");
    await writeRange(file, header, 0);
    if (size !== undefined) await file.truncate(size);
    return file;
  } catch (error) {
    await file?.close();
    throw systemError(`cannot write ${path}`, error);
  }
}
