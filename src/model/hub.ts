import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir, open, rename, rm, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { HubApiError, listFiles } from "@huggingface/hub";
import { UserError } from "../errors.ts";
import { systemError, writeRange } from "./files.ts";

const defaultEndpoint = "https://huggingface.co";
/** Tries of one file without a new byte before giving up, and the wait after the first. */
const maxTries = 5;
const firstWaitMs = 200;

export interface PullOptions {
  /** `owner/name`, `datasets/owner/name`, or either followed by the path of one file. */
  name: string;
  /** Where the files go; `models/<owner>/<name>` or `data/<owner>/<name>` by default. */
  target?: string;
  /** Another Hub; the environment's HF_ENDPOINT, then huggingface.co, by default. */
  endpoint?: string;
  onProgress?: (progress: PullProgress) => void;
}

export interface PullProgress {
  file: string;
  /** Bytes of this file that are here, and all. */
  bytes: number;
  total: number;
  /** Counts from 1. */
  index: number;
  files: number;
}

export interface PullResult {
  kind: RepoKind;
  folder: string;
  /** Paths in the repository, as they now lie in the folder. */
  files: string[];
}

type RepoKind = "model" | "dataset";

interface RemoteFile {
  path: string;
  size: number;
  /** SHA-256 of the content for large files, git's SHA-1 for the others. */
  checksum: { algorithm: "sha256" | "git-sha1"; digest: string };
}

interface Repo {
  kind: RepoKind;
  name: string;
  endpoint: string;
  token?: string;
}

/**
 * Fetches a model or a dataset from the Hugging Face Hub: of a model the safetensors and what stands beside them, of a dataset its
 * parquet, JSON, JSON lines or CSV. A transfer that breaks goes on where it stopped, now or at the next call; every file's checksum is
 * compared before it gets its name, and files that are already here are not fetched again. The environment's HF_TOKEN opens
 * gated and private repositories.
 */
export async function pull(options: PullOptions): Promise<PullResult> {
  const { kind, name, file } = parseName(options.name);
  const endpoint = (options.endpoint ?? process.env.HF_ENDPOINT ?? defaultEndpoint).replace(/\/+$/, "");
  const token = process.env.HF_TOKEN || undefined;
  if (token && !token.startsWith("hf_"))
    throw new UserError('HF_TOKEN: expected a token that begins with "hf_"; correct or unset it');
  const kinds: RepoKind[] = kind ? [kind] : ["model", "dataset"];
  const { repo, listed } = await findRepo(kinds.map((kind) => ({ kind, name, endpoint, token })));
  const chosen = file === undefined ? choose(repo, listed) : listed.filter((entry) => entry.path === file);
  if (chosen.length === 0) throw nothingToPull(repo, listed, file);
  const folder = options.target ?? join(repo.kind === "model" ? "models" : "data", ...name.split("/"));
  for (const [i, entry] of chosen.entries()) {
    await download(repo, entry, localPath(folder, entry.path), (bytes) =>
      options.onProgress?.({ file: entry.path, bytes, total: entry.size, index: i + 1, files: chosen.length }),
    );
  }
  return { kind: repo.kind, folder, files: chosen.map((entry) => entry.path) };
}

function parseName(full: string): { kind?: RepoKind; name: string; file?: string } {
  const parts = full.split("/");
  const kind = parts[0] === "datasets" ? "dataset" : undefined;
  if (kind) parts.shift();
  if (parts.length < 2 || parts.some((part) => !/^[\w.-]+$/.test(part) || /^\.+$/.test(part))) {
    throw new UserError(`pull: expected owner/name, datasets/owner/name or owner/name/file, found "${full}"`);
  }
  return { kind, name: parts.slice(0, 2).join("/"), file: parts.length > 2 ? parts.slice(2).join("/") : undefined };
}

/** The first of the candidates that exists. The Hub answers 401 for a repository that it does not show. */
async function findRepo(candidates: Repo[]): Promise<{ repo: Repo; listed: RemoteFile[] }> {
  let last: unknown;
  for (const repo of candidates) {
    try {
      return { repo, listed: await list(repo) };
    } catch (error) {
      last = error;
      if (!(error instanceof HubApiError) || (error.statusCode !== 404 && error.statusCode !== 401)) break;
    }
  }
  const { name, endpoint } = candidates[0];
  if (!(last instanceof HubApiError)) throw new UserError(`pull ${name}: cannot reach ${endpoint}: ${reason(last)}`);
  const kinds = candidates.map((repo) => repo.kind).join(" or ");
  const status = last.statusCode;
  if (status === 404 || status === 401) {
    throw new UserError(
      `pull ${name}: ${endpoint} has no ${kinds} of this name; check it, or set HF_TOKEN if it is private`,
    );
  }
  if (status === 403)
    throw new UserError(`pull ${name}: access refused; accept its terms at ${endpoint}/${name} and set HF_TOKEN`);
  throw new UserError(`pull ${name}: ${endpoint} answered with status ${status}; try again later`);
}

async function list(repo: Repo): Promise<RemoteFile[]> {
  const files: RemoteFile[] = [];
  const { kind: type, name, endpoint: hubUrl, token: accessToken } = repo;
  for await (const entry of listFiles({
    repo: { type, name },
    recursive: true,
    hubUrl,
    ...(accessToken && { accessToken }),
  })) {
    if (entry.type !== "file") continue;
    const digest = entry.lfs?.oid ?? entry.oid;
    if (!digest) throw new UserError(`pull ${name}: ${hubUrl} gave no checksum for ${entry.path}`);
    files.push({
      path: entry.path,
      size: entry.size,
      checksum: { algorithm: entry.lfs ? "sha256" : "git-sha1", digest },
    });
  }
  return files;
}

const modelFile = /^[^/]+\.(safetensors|json|jinja)$/;
const dataFile = /\.(parquet|json|jsonl|csv)$/;

function choose(repo: Repo, listed: readonly RemoteFile[]): RemoteFile[] {
  if (repo.kind === "dataset") return listed.filter((entry) => dataFile.test(entry.path));
  const chosen = listed.filter((entry) => modelFile.test(entry.path));
  return chosen.some((entry) => entry.path.endsWith(".safetensors")) ? chosen : [];
}

function nothingToPull({ kind, name }: Repo, listed: readonly RemoteFile[], file: string | undefined): UserError {
  if (file !== undefined) return new UserError(`pull ${name}: it holds no file ${file}`);
  const gguf = listed.filter((entry) => entry.path.endsWith(".gguf"));
  if (gguf.length > 0) {
    const names = gguf.map((entry) => `${name}/${entry.path}`).join(", ");
    return new UserError(`pull ${name}: expected safetensors, found GGUF files; name one of them: ${names}`);
  }
  const expected = kind === "model" ? "safetensors" : "parquet, JSON, JSON lines or CSV";
  return new UserError(
    `pull ${name}: expected ${expected}, found ${listed.map((entry) => entry.path).join(", ") || "nothing"}`,
  );
}

function localPath(folder: string, path: string): string {
  const parts = path.split("/");
  if (parts.some((part) => part === "" || part === ".." || /[\\:]/.test(part))) {
    throw new UserError(`pull: the file name "${path}" leaves the target folder`);
  }
  return join(folder, ...parts);
}

/** Fetches one file into `<target>.<checksum>.part`, which is renamed once it is whole and right. */
async function download(repo: Repo, file: RemoteFile, target: string, onBytes: (bytes: number) => void): Promise<void> {
  const { algorithm, digest } = file.checksum;
  if ((await sizeOf(target)) === file.size && (await hashFile(target, file)) === digest) return onBytes(file.size);
  await mkdir(dirname(target), { recursive: true }).catch((error) => {
    throw systemError(`cannot write ${dirname(target)}`, error);
  });
  // Carries the checksum, so that what another revision left behind is never continued.
  const part = `${target}.${digest.slice(0, 12)}.part`;
  for (let tries = 0; (await sizeOf(part)) !== file.size;) {
    const before = await sizeOf(part);
    try {
      await transfer(repo, file, part, onBytes);
    } catch (error) {
      if (error instanceof UserError) throw error;
      tries = (await sizeOf(part)) === before ? tries + 1 : 1;
      if (tries === maxTries) {
        const kept = `${(await sizeOf(part)) ?? 0} of ${file.size} bytes are kept in ${part}; pull again to go on`;
        throw new UserError(`pull ${repo.name}: ${file.path}: ${reason(error)}; ${kept}`);
      }
      await sleep(firstWaitMs * 2 ** (tries - 1));
    }
  }
  const found = await hashFile(part, file);
  if (found !== digest) {
    await rm(part);
    throw new UserError(
      `pull ${repo.name}: ${file.path}: expected ${algorithm} ${digest}, found ${found}; what came was thrown away, pull again`,
    );
  }
  await rename(part, target);
  onBytes(file.size);
}

/** Appends to `part` what the file lacks; returns when the server's answer ends, whole or not. */
async function transfer(repo: Repo, file: RemoteFile, part: string, onBytes: (bytes: number) => void): Promise<void> {
  const have = (await sizeOf(part)) ?? 0;
  const from = have > file.size ? 0 : have;
  const prefix = repo.kind === "dataset" ? "datasets/" : "";
  const path = file.path.split("/").map(encodeURIComponent).join("/");
  const response = await fetch(`${repo.endpoint}/${prefix}${repo.name}/resolve/main/${path}`, {
    headers: {
      ...(repo.token && { authorization: `Bearer ${repo.token}` }),
      ...(from > 0 && { range: `bytes=${from}-` }),
    },
  });
  if (!response.ok || !response.body) {
    await response.body?.cancel();
    if (response.status === 401 || response.status === 403) {
      throw new UserError(
        `pull ${repo.name}: access to ${file.path} refused; accept its terms at ${repo.endpoint}/${repo.name} and set HF_TOKEN`,
      );
    }
    throw new Error(`status ${response.status}`);
  }
  // A server may ignore the range and begin anew.
  let position = response.status === 206 ? from : 0;
  const output = await openPart(part, position);
  try {
    for await (const chunk of response.body) {
      const bytes: Uint8Array = chunk;
      await writeRange(output, bytes, position).catch((error) => {
        throw systemError(`cannot write ${part}`, error);
      });
      position += bytes.length;
      if (position > file.size)
        throw new UserError(`pull ${repo.name}: ${file.path} is longer than the ${file.size} bytes announced`);
      onBytes(position);
    }
  } finally {
    await output.close();
  }
  if (position < file.size) throw new Error(`the connection ended after ${position} of ${file.size} bytes`);
}

async function openPart(part: string, length: number) {
  try {
    const file = await open(part, length > 0 ? "r+" : "w");
    await file.truncate(length);
    return file;
  } catch (error) {
    throw systemError(`cannot write ${part}`, error);
  }
}

/** Bytes of a file, or undefined where there is none. */
async function sizeOf(path: string): Promise<number | undefined> {
  return stat(path).then(
    (found) => found.size,
    () => undefined,
  );
}

async function hashFile(path: string, { size, checksum }: RemoteFile): Promise<string> {
  const hash = createHash(checksum.algorithm === "sha256" ? "sha256" : "sha1");
  // Git hashes a header with the content.
  if (checksum.algorithm === "git-sha1") hash.update(`blob ${size}\0`);
  for await (const chunk of createReadStream(path)) hash.update(chunk);
  return hash.digest("hex");
}

/** `fetch` hides what happened in the cause. */
function reason(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.cause instanceof Error && error.cause.message ? error.cause.message : error.message;
}
