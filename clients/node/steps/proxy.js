// A way to the server that can be cut: its connections break, and nobody listens until it is mended.

import { once } from 'node:events';
import net from 'node:net';

export class Proxy {
  #server;
  #target;
  #sockets = new Set();
  #port = 0;
  connections = 0;

  static async to(address) {
    const proxy = new Proxy();
    const { hostname, port } = new URL(`http://${address}`);
    proxy.#target = { host: hostname, port: Number(port) };
    await proxy.mend();
    return proxy;
  }

  get address() {
    return `127.0.0.1:${this.#port}`;
  }

  /** Lets connections through, on the same port as before. */
  async mend() {
    this.#server = net.createServer((client) => {
      this.connections += 1;
      const upstream = net.connect(this.#target);
      for (const [from, to] of [[client, upstream], [upstream, client]]) {
        this.#sockets.add(from);
        from.on('error', () => {}); // `close` follows, and says the same.
        from.on('close', () => to.destroy());
        from.pipe(to);
      }
    });
    this.#server.listen(this.#port, '127.0.0.1');
    await once(this.#server, 'listening');
    this.#port = this.#server.address().port;
  }

  /** Cuts the connections there are; no other one is accepted. */
  async cut() {
    const closed = once(this.#server, 'close');
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
    this.#sockets.clear();
    await closed;
  }

  async close() {
    if (this.#server.listening) await this.cut();
  }
}
