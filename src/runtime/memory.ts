import { freemem, totalmem } from "node:os";

/** Bytes. */
export interface Memory {
  /** Of the machine, or of the container that holds this process. */
  total: number;
  /** What could be had now without swapping. */
  available: number;
  /** The most that was resident of this process so far. */
  peak: number;
}

export function memory(): Memory {
  const limit = process.constrainedMemory();
  const total = limit > 0 ? Math.min(limit, totalmem()) : totalmem();
  // macOS counts its file cache as used, so that a healthy machine seems full.
  const floor = process.platform === "darwin" ? total / 2 : 0;
  const available = Math.min(total, Math.max(process.availableMemory(), freemem(), floor));
  // Kilobytes, except where an older libuv hands macOS's bytes on; no peak is 1024 times what is resident now.
  const { maxRSS } = process.resourceUsage();
  return { total, available, peak: maxRSS >= process.memoryUsage.rss() ? maxRSS : maxRSS * 1024 };
}
