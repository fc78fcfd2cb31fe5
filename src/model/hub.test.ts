import { createHash } from "node:crypto";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { UserError } from "../errors.ts";
import { pull, type PullProgress } from "./hub.ts";

interface Stored {
  content: Buffer;
  /** Stored with LFS, so its checksum is a SHA-256. */
  large?: boolean;
  /** Connections are cut after so many bytes of the answer. */
  cutAfter?: number;
  /** What the API says in place of the checksum. */
  wrongChecksum?: string;
  ignoreRange?: boolean;
  status?: number;
}
type Repos = Record<string, Record<string, Stored>>;

let server: Server;
let endpoint: string;
let folder: string;
let repos: Repos;
/** "GET path range" of what was asked for. */
let asked: string[];

beforeEach(async () => {
  repos = {};
  asked = [];
  folder = await mkdtemp(join(tmpdir(), "rifft-hub-"));
  server = createServer(answer);
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("no port");
  endpoint = `http://127.0.0.1:${address.port}`;
});
afterEach(async () => {
  vi.unstubAllEnvs();
  server.closeAllConnections();
  await new Promise((done) => server.close(done));
  await rm(folder, { recursive: true });
});

/** The two endpoints of the Hub that are needed: the tree of a repository (two files a page), and its files. */
function answer(request: IncomingMessage, response: ServerResponse): void {
  const url = new URL(request.url ?? "/", endpoint);
  const path = decodeURIComponent(url.pathname);
  const range = request.headers.range ?? "";
  asked.push(`${path} ${range}${request.headers.authorization ? ` ${request.headers.authorization}` : ""}`.trim());
  const tree = /^\/api\/((?:model|dataset)s\/[^/]+\/[^/]+)\/tree\/main$/.exec(path);
  if (tree) return answerTree(tree[1], Number(url.searchParams.get("page") ?? 0), response);
  const file = /^\/(datasets\/)?([^/]+\/[^/]+)\/resolve\/main\/(.+)$/.exec(path);
  const stored = file && repos[`${file[1] ?? "models/"}${file[2]}`]?.[file[3]];
  if (!stored) return void response.writeHead(404).end();
  if (stored.status) return void response.writeHead(stored.status).end();
  const from = stored.ignoreRange ? 0 : Number(/^bytes=(\d+)-$/.exec(range)?.[1] ?? 0);
  const rest = stored.content.subarray(from);
  response.writeHead(from > 0 ? 206 : 200, { "content-length": rest.length });
  if (stored.cutAfter === undefined || rest.length <= stored.cutAfter) return void response.end(rest);
  response.write(rest.subarray(0, stored.cutAfter), () => setTimeout(() => response.destroy(), 20));
}

function answerTree(repo: string, page: number, response: ServerResponse): void {
  const files = repos[repo];
  if (!files) return void response.writeHead(401, { "content-type": "application/json" }).end('{"error":"not found"}');
  const sha = (algorithm: string, ...parts: (string | Buffer)[]) =>
    parts.reduce((hash, part) => hash.update(part), createHash(algorithm)).digest("hex");
  const entries = Object.entries(files).map(([path, { content, large, wrongChecksum }]) => {
    const git = sha("sha1", `blob ${content.length}\0`, content);
    const lfs = { oid: wrongChecksum ?? sha("sha256", content), size: content.length, pointerSize: 130 };
    return {
      type: "file",
      path,
      size: content.length,
      oid: large ? "pointer" : (wrongChecksum ?? git),
      ...(large && { lfs }),
    };
  });
  const more = entries.length > 2 * (page + 1);
  response.writeHead(200, {
    "content-type": "application/json",
    ...(more && { link: `<${endpoint}/api/${repo}/tree/main?recursive=true&page=${page + 1}>; rel="next"` }),
  });
  response.end(
    JSON.stringify([{ type: "directory", path: "sub", size: 0, oid: "x" }, ...entries.slice(2 * page, 2 * page + 2)]),
  );
}

const weights = Buffer.from(Array.from({ length: 300_000 }, (_, i) => (i * 7) & 255));
const text = (content: string): Stored => ({ content: Buffer.from(content) });
const model = (): Record<string, Stored> => ({
  "config.json": text('{"model_type":"llama"}'),
  "model.safetensors": { content: weights, large: true },
  "tokenizer.json": text("{}"),
  "chat_template.jinja": text("{{ x }}"),
  "empty.json": text(""),
  "README.md": text("# read"),
  "pytorch_model.bin": { content: weights, large: true },
  "onnx/config.json": text("{}"),
});
const resolves = () => asked.filter((line) => line.includes("/resolve/"));

describe("pull", () => {
  it("fetches a model's files, and only once", async () => {
    repos["models/org/small"] = model();
    const progress: PullProgress[] = [];
    const target = join(folder, "small");
    const result = await pull({ name: "org/small", target, endpoint, onProgress: (now) => progress.push(now) });
    const files = ["chat_template.jinja", "config.json", "empty.json", "model.safetensors", "tokenizer.json"];
    expect(result).toMatchObject({ kind: "model", folder: target });
    expect(result.files.toSorted()).toEqual(files);
    expect((await readdir(target)).sort()).toEqual(files);
    expect((await readFile(join(target, "model.safetensors"))).equals(weights)).toBe(true);
    const last = progress.at(-1);
    expect(last).toMatchObject({ index: 5, files: 5 });
    expect(progress.every(({ bytes, total }) => bytes <= total)).toBe(true);

    asked = [];
    await pull({ name: "org/small", target, endpoint });
    expect(resolves()).toEqual([]);
    repos["models/org/small"]["config.json"] = text('{"model_type":"qwen"}');
    await pull({ name: "org/small", target, endpoint });
    expect(resolves()).toEqual(["/org/small/resolve/main/config.json"]);
    expect(await readFile(join(target, "config.json"), "utf8")).toContain("qwen");
  });

  it("goes on where a connection broke, and where an earlier call stopped", async () => {
    const files = model();
    repos["models/org/small"] = files;
    files["model.safetensors"].cutAfter = 120_000;
    const target = join(folder, "small");
    await pull({ name: "org/small", target, endpoint });
    expect((await readFile(join(target, "model.safetensors"))).equals(weights)).toBe(true);
    const ranges = resolves().filter((line) => line.includes("safetensors"));
    expect(ranges).toHaveLength(3);
    expect(ranges[1]).toMatch(/bytes=\d+-/);

    await rm(join(target, "model.safetensors"));
    const digest = createHash("sha256").update(weights).digest("hex");
    await writeFile(join(target, `model.safetensors.${digest.slice(0, 12)}.part`), weights.subarray(0, 250_000));
    asked = [];
    await pull({ name: "org/small", target, endpoint });
    expect(resolves()).toEqual(["/org/small/resolve/main/model.safetensors bytes=250000-"]);
    expect((await readFile(join(target, "model.safetensors"))).equals(weights)).toBe(true);
  });

  it("begins anew where the server knows no ranges", async () => {
    const files = model();
    repos["models/org/small"] = files;
    files["model.safetensors"].ignoreRange = true;
    const target = join(folder, "small");
    const digest = createHash("sha256").update(weights).digest("hex");
    await pull({ name: "org/small/config.json", target, endpoint });
    await writeFile(join(target, `model.safetensors.${digest.slice(0, 12)}.part`), "rubbish");
    await pull({ name: "org/small", target, endpoint });
    expect((await readFile(join(target, "model.safetensors"))).equals(weights)).toBe(true);
  });

  it.each(["model.safetensors", "config.json"])("throws %s away when its checksum is wrong", async (name) => {
    const files = model();
    repos["models/org/small"] = files;
    files[name].wrongChecksum = "0".repeat(64);
    const target = join(folder, "small");
    const wrong = pull({ name: "org/small", target, endpoint });
    await expect(wrong).rejects.toThrow(UserError);
    await expect(wrong).rejects.toThrow(new RegExp(`${name}: expected \\S+ 0{64}, found [0-9a-f]+`));
    expect((await readdir(target)).filter((file) => file.startsWith(name))).toEqual([]);
  });

  it("gives up after several answers without a byte, and says what is kept", async () => {
    const files = model();
    repos["models/org/small"] = files;
    files["model.safetensors"].status = 500;
    const failed = pull({ name: "org/small", target: join(folder, "small"), endpoint });
    await expect(failed).rejects.toThrow(/model.safetensors: status 500; 0 of 300000 bytes are kept/);
    expect(resolves().filter((line) => line.includes("safetensors"))).toHaveLength(5);
    files["model.safetensors"].status = 403;
    await expect(pull({ name: "org/small", target: join(folder, "small"), endpoint })).rejects.toThrow(/set HF_TOKEN/);
  });

  it("finds a dataset by its bare name, keeps its folders, and puts it under data/", async () => {
    repos["datasets/org/sums"] = { "main/train.parquet": { content: weights, large: true }, "README.md": text("#") };
    vi.stubEnv("HF_ENDPOINT", `${endpoint}/`);
    vi.stubEnv("HF_TOKEN", "hf_secret");
    const before = process.cwd();
    process.chdir(folder);
    try {
      const result = await pull({ name: "org/sums" });
      expect(result).toEqual({ kind: "dataset", folder: join("data", "org", "sums"), files: ["main/train.parquet"] });
      expect(await readdir(join(folder, "data", "org", "sums", "main"))).toEqual(["train.parquet"]);
    } finally {
      process.chdir(before);
    }
    expect(asked.every((line) => line.endsWith("Bearer hf_secret"))).toBe(true);
    const named = await pull({ name: "datasets/org/sums", target: join(folder, "again") });
    expect(named.kind).toBe("dataset");
  });

  it("takes one GGUF file by its name, and lists them where none is named", async () => {
    repos["models/org/gguf"] = { "a.Q4_1.gguf": { content: weights, large: true }, "b.Q8_0.gguf": text("GGUF") };
    await expect(pull({ name: "org/gguf", endpoint })).rejects.toThrow(
      /name one of them: org\/gguf\/a.Q4_1.gguf, org\/gguf\/b/,
    );
    const target = join(folder, "gguf");
    expect((await pull({ name: "org/gguf/a.Q4_1.gguf", target, endpoint })).files).toEqual(["a.Q4_1.gguf"]);
    await expect(pull({ name: "org/gguf/c.gguf", target, endpoint })).rejects.toThrow(/holds no file c.gguf/);
  });

  it("refuses what it cannot fetch, in one line", async () => {
    await expect(pull({ name: "org/none", endpoint })).rejects.toThrow(/has no model or dataset of this name/);
    await expect(pull({ name: "small", endpoint })).rejects.toThrow(/expected owner\/name/);
    await expect(pull({ name: "org/../x", endpoint })).rejects.toThrow(UserError);
    await expect(pull({ name: "org/none", endpoint: "http://127.0.0.1:9" })).rejects.toThrow(/cannot reach/);
    repos["models/org/evil"] = { "model.safetensors": text("x"), "..\\x.json": text("{}") };
    await expect(pull({ name: "org/evil", target: folder, endpoint })).rejects.toThrow(/leaves the target folder/);
    vi.stubEnv("HF_TOKEN", "secret");
    await expect(pull({ name: "org/none", endpoint })).rejects.toThrow(
      /HF_TOKEN: expected a token that begins with "hf_"/,
    );
  });
});
