/**
 * Acts as a kubelet in tests: pulls images through containerd's CRI and runs pods from them, in the host's network, so that
 * tests need no CNI plugin.
 *
 *     const cri = new CriClient(containerd.socket, '/obd-ts-test');
 *     await cri.pull('127.0.0.1:5000/app:1');
 *     await cri.withContainer('127.0.0.1:5000/app:1', ['/bin/sh', '-c', 'sleep 100'], async (exec) => {
 *       assert.equal(await exec('cat', '/hello'), 'hello\n');
 *     });
 *
 * containerd's configuration names the sandbox image (`sandbox_image`): its command must run for long.
 */
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { ServiceDefinition } from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { type ClientMethod, GrpcClient } from '../../src/grpc/grpc-client.js';

const CALL_MS_MAX = 120_000;
const EXEC_S_MAX = 60;

/** Runs a command in a container, and returns its output; fails if its exit status is not 0. */
export type Exec = (...command: readonly string[]) => Promise<string>;

type Message = Record<string, unknown>;

export class CriClient {
  readonly #client: GrpcClient;
  readonly #methods: Readonly<Record<string, ClientMethod<Message, Message>>>;
  readonly #cgroupParent: string;

  /** @param cgroupParent - Parent cgroup of all pods, such as `/obd-ts-abc`. */
  constructor(socketPath: string, cgroupParent: string) {
    this.#client = new GrpcClient(socketPath, { peer: 'CRI', timeoutMs: CALL_MS_MAX });
    this.#cgroupParent = cgroupParent;
    const loaded = loadSync(protoFile(), { longs: Number, enums: String, defaults: true });
    this.#methods = {
      ...(loaded['runtime.v1.RuntimeService'] as ServiceDefinition),
      ...(loaded['runtime.v1.ImageService'] as ServiceDefinition),
    } as Readonly<Record<string, ClientMethod<Message, Message>>>;
  }

  async pull(image: string): Promise<void> {
    await this.#call('PullImage', { image: { image } });
  }

  /** The id of an image; undefined if containerd does not have it. */
  async idOf(image: string): Promise<string | undefined> {
    const found = (await this.#call('ImageStatus', { image: { image } }))['image'];
    return (found as { id: string } | null)?.id;
  }

  /** Idempotent. */
  async removeImage(image: string): Promise<void> {
    await this.#call('RemoveImage', { image: { image } });
  }

  /** Runs a pod with one container, and removes both. The container's command must outlast `body`. */
  async withContainer<T>(
    image: string,
    command: readonly string[],
    body: (exec: Exec) => Promise<T>,
  ): Promise<T> {
    const uid = randomUUID();
    const options = { network: 'NODE', pid: 'CONTAINER', ipc: 'POD' };
    const config = {
      metadata: { name: `pod-${uid}`, uid, namespace: 'test', attempt: 0 },
      linux: {
        cgroupParent: this.#cgroupParent,
        securityContext: { namespaceOptions: options },
      },
    };
    const { podSandboxId } = await this.#call('RunPodSandbox', { config });
    try {
      const { containerId } = await this.#call('CreateContainer', {
        podSandboxId,
        sandboxConfig: config,
        config: {
          metadata: { name: 'main', attempt: 0 },
          image: { image },
          command,
          linux: { securityContext: { namespaceOptions: options } },
        },
      });
      await this.#call('StartContainer', { containerId });
      return await body(async (...cmd) => {
        const answer = await this.#call('ExecSync', { containerId, cmd, timeout: EXEC_S_MAX });
        const { stdout, stderr, exitCode } = answer as { stdout: Buffer } & Message;
        assert.equal(exitCode, 0, String(stderr));
        return stdout.toString();
      });
    } finally {
      // containerd stops the pod's containers too.
      await this.#call('StopPodSandbox', { podSandboxId });
      await this.#call('RemovePodSandbox', { podSandboxId });
    }
  }

  close(): void {
    this.#client.close();
  }

  async #call(name: string, request: Message): Promise<Message> {
    const method = this.#methods[name];
    assert.ok(method !== undefined, name);
    return await this.#client.call(method, request);
  }
}

function protoFile(): string {
  let root = import.meta.dirname;
  while (!existsSync(join(root, 'package.json'))) root = dirname(root);
  return join(root, 'test', 'support', 'cri.proto');
}
