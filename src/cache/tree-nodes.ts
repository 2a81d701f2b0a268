/**
 * The nodes of the tree that are in memory, and where in the image nodes may be written.
 *
 * A node that a commit has written, or is writing, is never changed: whoever wants to change it takes a copy at another place
 * (`writable`). So the tree of the last commit stays whole in the image until the next one is durable. Places given up are free only
 * then; they are collected in `Deferred`.
 *
 * Shared state: changed between awaits only. Nodes of the current epoch stay in memory until they are written, others up to a limit.
 */
import type { BlockDevice } from '../device/block-device.js';
import { BufferPool } from '../device/buffer-pool.js';
import { assert } from '../errors.js';
import { badField } from '../format/binary.js';
import { VCI_BLOCK_SIZE } from '../format/vci.js';
import { type AnyColumns, decodeNode, NODE_BLOCKS, NODE_SIZE } from '../format/vci-node.js';
import type { BlockMap } from './block-map.js';
import type { Deferred } from './deferred.js';
import { NodePool } from './node-pool.js';

export interface TreeNode {
  readonly columns: AnyColumns;
  readonly address: number;
  /** When it was made; of a node that was read, -1. */
  readonly epoch: number;
  /** Not written yet. */
  dirty: boolean;
  /** Where it stands among those of the current epoch. */
  place: number;
  /** Used since the last search for nodes that can go. */
  used: boolean;
}

/** Places kept for nodes, so that a change of the tree never ends half done. */
const SPARE_WANTED = 48;
/** Most that one change of the tree takes: three ways of up to five nodes, each with a split. */
export const SPARE_NEEDED = 32;
/** Most that it takes to take an extent out. What is copied gives its old place back with the next commit, so there always is that much. */
export const SPARE_NEEDED_TO_EVICT = 8;
/** Nodes that may stay in memory besides those of the current epoch, however many those are. */
const CLEAN_NODES_MIN = 128;
/** Buffers for reading nodes that are kept. */
const BUFFERS_KEPT = 16;

export class TreeNodes {
  readonly #device: BlockDevice;
  readonly #map: BlockMap;
  readonly #deferred: Deferred;
  readonly #limit: number;
  readonly #sealed: boolean;
  readonly #nodes = new Map<number, TreeNode>();
  /** For the columns of nodes: who lets a node go gives them back. */
  readonly #memory = new NodePool();
  readonly #buffers = new BufferPool(BUFFERS_KEPT * NODE_SIZE);
  /** What is being read; an entry that is taken away makes what was read void. */
  readonly #loading = new Map<number, Promise<void>>();
  readonly #spare: number[] = [];
  /** Nodes go before this block, as long as there is room for them there. */
  border = Number.POSITIVE_INFINITY;
  /** Those of the current epoch, in no order. */
  #dirty: TreeNode[] = [];
  #epoch = 0;

  /** @param limit nodes that stay in memory; more only if many are not written yet @param sealed nodes have checksums */
  constructor(device: BlockDevice, map: BlockMap, deferred: Deferred, limit: number, sealed: boolean) {
    this.#device = device;
    this.#map = map;
    this.#deferred = deferred;
    this.#limit = limit;
    this.#sealed = sealed;
  }

  get epoch(): number {
    return this.#epoch;
  }

  get dirtyCount(): number {
    return this.#dirty.length;
  }

  /** Blocks that are kept for nodes and hold none. */
  get spareBlocks(): number {
    return this.#spare.length * NODE_BLOCKS;
  }

  /** Takes places for nodes, as far as there are any. @returns how many there are */
  fillSpare(): number {
    // Many at a time, so that they do not come between data that could lie together.
    if (this.#spare.length >= SPARE_NEEDED) return this.#spare.length;
    while (this.#spare.length < SPARE_WANTED) {
      const address =
        this.#map.allocate(NODE_BLOCKS, 'metadata', this.border) ??
        this.#map.allocate(NODE_BLOCKS, 'metadata');
      if (address === undefined) break;
      this.#spare.push(address);
    }
    // Taken from the end.
    if (this.border !== Number.POSITIVE_INFINITY) this.#spare.sort((a, b) => b - a);
    return this.#spare.length;
  }

  /** Gives the places back. */
  dropSpare(): void {
    for (const address of this.#spare.splice(0)) this.#map.release(address, NODE_BLOCKS, 'metadata');
  }

  /** Forgets all nodes: the tree that they are of is given up. */
  clear(): void {
    this.#loading.clear();
    this.#nodes.clear();
    this.#dirty = [];
  }

  /** The node at this address, if it is in memory. */
  get(address: number): TreeNode | undefined {
    const node = this.#nodes.get(address);
    if (node !== undefined) node.used = true;
    return node;
  }

  /** Reads a node. It may be gone from memory again by the time the caller goes on. @throws FormatError, DeviceError */
  load(address: number): Promise<void> {
    const running = this.#loading.get(address);
    if (running !== undefined) return running;
    const load = this.#read(address, () => this.#loading.get(address) === load);
    this.#loading.set(address, load);
    return load;
  }

  async #read(address: number, isWanted: () => boolean): Promise<void> {
    const bytes = this.#buffers.take(NODE_SIZE);
    try {
      await this.#device.read(address * VCI_BLOCK_SIZE, bytes);
      // Whatever is there by now, the tree has gone on.
      if (!isWanted()) return;
      const context = { offset: address * VCI_BLOCK_SIZE };
      const { node } = decodeNode(bytes, context, this.#sealed, this.#memory);
      for (let index = 0; index < node.size; index++) this.#checkInside(address, node, index);
      this.#keep({ columns: node, address, epoch: -1, dirty: false, place: -1, used: true });
      this.#makeRoom();
    } catch (error) {
      if (isWanted()) throw error;
    } finally {
      if (isWanted()) this.#loading.delete(address);
      this.#buffers.give(bytes);
    }
  }

  #checkInside(address: number, node: AnyColumns, index: number): void {
    const to = node.addresses[index] ?? 0;
    const length = node.kind === 'leaf' ? (node.counts[index] ?? 0) : NODE_BLOCKS;
    if (to + length > this.#map.blocks)
      throw badField(
        { offset: address * VCI_BLOCK_SIZE },
        `${node.kind} entry ${index}: address`,
        to,
        `within the ${this.#map.blocks} blocks of the image`,
      );
  }

  /** A new, empty node. */
  create(kind: AnyColumns['kind']): TreeNode {
    return this.#make(this.#memory.take(kind));
  }

  /** A node that may be changed, with the content of this one, which it replaces: itself if it was made since the last commit. */
  writable(node: TreeNode): TreeNode {
    if (node.epoch === this.#epoch) return node;
    const copy = this.#memory.take(node.columns.kind);
    copy.size = node.columns.size;
    copy.firsts.set(node.columns.firsts);
    copy.counts.set(node.columns.counts);
    copy.addresses.set(node.columns.addresses);
    this.release(node);
    return this.#make(copy);
  }

  /** The node is no part of the tree any more, and its columns are another's: whoever calls this has what he needs of them. */
  release(node: TreeNode): void {
    this.#forget(node.address);
    this.#memory.give(node.columns);
    if (node.epoch === this.#epoch) {
      const last = this.#dirty.pop();
      if (last !== undefined && last !== node) {
        this.#dirty[node.place] = last;
        last.place = node.place;
      }
      this.#spare.push(node.address); // No commit knows it.
    } else this.#deferred.add(node.address, NODE_BLOCKS, 'metadata');
  }

  /** The nodes of this epoch, which are not to be changed from now on: the next epoch begins. */
  freeze(): TreeNode[] {
    const nodes = this.#dirty;
    this.#dirty = [];
    this.#epoch++;
    return nodes;
  }

  /** These nodes are in the image. */
  written(nodes: readonly TreeNode[]): void {
    for (const node of nodes) node.dirty = false;
    this.#makeRoom();
  }

  #make(columns: AnyColumns): TreeNode {
    const address = this.#spare.pop();
    assert(address !== undefined, () => 'the tree was changed without places for its nodes');
    const place = this.#dirty.length;
    const node = { columns, address, epoch: this.#epoch, dirty: true, place, used: true };
    this.#dirty.push(node);
    this.#keep(node);
    return node;
  }

  #keep(node: TreeNode): void {
    this.#loading.delete(node.address);
    this.#nodes.set(node.address, node);
  }

  #forget(address: number): void {
    this.#loading.delete(address);
    this.#nodes.delete(address);
  }

  /**
   * Lets nodes go that were not used since the last time: a clock, whose hand is the order of the map. Only where nodes come to be in memory or
   * become ones that can go, never while the tree is being changed.
   */
  #makeRoom(): void {
    let looks = this.#nodes.size;
    const most = Math.max(this.#limit, this.#dirty.length + Math.min(this.#limit, CLEAN_NODES_MIN));
    for (const [address, node] of this.#nodes) {
      if (this.#nodes.size <= most || looks-- === 0) return;
      this.#nodes.delete(address);
      if (node.dirty || node.used) {
        node.used = false;
        this.#nodes.set(address, node);
      } else this.#memory.give(node.columns);
    }
  }
}
