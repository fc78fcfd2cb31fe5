/**
 * The radix tree of computed keys and values: one node a run of tokens, children told apart by their first token. A prefix that
 * was computed once, as a group's prompt or as somebody's sample, is found again by its ids.
 */
export interface KvNode {
  parent: KvNode | null;
  children: Map<number, KvNode>;
  tokens: Int32Array;
  /** Tokens before this node. */
  depth: number;
  /** By layer, keys then values, each [tokens, kvHeads * headDim], keys rotated; null until computed. */
  data: { keys: Float32Array[]; values: Float32Array[] } | null;
  lastUse: number;
}

export class KvTree {
  private readonly root: KvNode = node(null, new Int32Array(0), 0);
  private clock = 0;
  private floats = 0;

  private readonly width: number;
  private readonly maxBytes: number;

  /** `width` is kvHeads * headDim. */
  constructor(width: number, maxBytes: number) {
    this.width = width;
    this.maxBytes = maxBytes;
  }

  get bytes(): number {
    return this.floats * 4;
  }

  /** The nodes that spell `tokens`, new ones made where the tree does not hold them; marks them as used. */
  insert(tokens: Int32Array): KvNode[] {
    const path: KvNode[] = [];
    const now = ++this.clock;
    let at = this.root;
    let i = 0;
    while (i < tokens.length) {
      const child = at.children.get(tokens[i]);
      if (!child) {
        const fresh = node(at, tokens.slice(i), i);
        at.children.set(tokens[i], fresh);
        fresh.lastUse = now;
        path.push(fresh);
        break;
      }
      let same = 1;
      while (same < child.tokens.length && child.tokens[same] === tokens[i + same]) same++;
      const whole = same < child.tokens.length ? this.split(child, same) : child;
      whole.lastUse = now;
      path.push(whole);
      at = whole;
      i += same;
    }
    return path;
  }

  /** Gives a node its keys and values. */
  fill(target: KvNode, data: { keys: Float32Array[]; values: Float32Array[] }): void {
    target.data = data;
    this.floats += 2 * data.keys.length * target.tokens.length * this.width;
  }

  /** Drops what was used least recently, leaves first, until the tree fits; nodes for which `pinned` holds stay. */
  trim(pinned: (node: KvNode) => boolean): void {
    while (this.bytes > this.maxBytes) {
      let oldest: KvNode | null = null;
      const visit = (at: KvNode): void => {
        for (const child of at.children.values()) visit(child);
        if (at.parent && at.children.size === 0 && !pinned(at) && (!oldest || at.lastUse < oldest.lastUse)) oldest = at;
      };
      visit(this.root);
      if (!oldest) return;
      this.remove(oldest);
    }
  }

  clear(): void {
    this.root.children.clear();
    this.floats = 0;
  }

  private remove(gone: KvNode): void {
    gone.parent?.children.delete(gone.tokens[0]);
    if (gone.data) this.floats -= 2 * gone.data.keys.length * gone.tokens.length * this.width;
  }

  /** Cuts a node after `length` tokens and returns the upper part. */
  private split(lower: KvNode, length: number): KvNode {
    const upper = node(lower.parent, lower.tokens.subarray(0, length), lower.depth);
    upper.lastUse = lower.lastUse;
    if (lower.data) {
      const { keys, values } = lower.data;
      const cut = length * this.width;
      upper.data = { keys: keys.map((k) => k.slice(0, cut)), values: values.map((v) => v.slice(0, cut)) };
      lower.data = { keys: keys.map((k) => k.slice(cut)), values: values.map((v) => v.slice(cut)) };
    }
    lower.parent?.children.set(upper.tokens[0], upper);
    lower.parent = upper;
    lower.depth += length;
    lower.tokens = lower.tokens.subarray(length);
    upper.children.set(lower.tokens[0], lower);
    return upper;
  }
}

const node = (parent: KvNode | null, tokens: Int32Array, depth: number): KvNode => ({
  parent,
  children: new Map(),
  tokens,
  depth,
  data: null,
  lastUse: 0,
});
