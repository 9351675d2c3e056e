"use strict";
// Where rows come from and decisions go: the server, or the data inside a read-only file.

const source = (() => {
  const embedded = document.getElementById("data");
  return embedded ? fromFile(JSON.parse(embedded.textContent)) : fromServer();

  function fromServer() {
    const details = new Map();
    let sending = Promise.resolve();
    let waiting = 0;

    async function ask(path, body) {
      const options = body && {
        method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
      };
      const response = await fetch(path, options);
      const answer = response.headers.get("content-type")?.startsWith("application/json")
        ? await response.json() : { error: await response.text() };
      if (!response.ok) throw Object.assign(new Error(answer.error), { refused: true, saved: answer.saved });
      return answer;
    }

    // Requests are sent one after the other, in the order of the keys. If the server does not answer, they are retried.
    function send(path, body, onProblem) {
      waiting += 1;
      const work = async () => {
        for (;;) {
          try {
            return await ask(path, body());
          } catch (error) {
            if (error.refused) throw error;
            onProblem(waiting);
            await new Promise((resolve) => setTimeout(resolve, 1000));
          }
        }
      };
      const answer = sending.then(work).finally(() => { waiting -= 1; });
      sending = answer.catch(() => {});
      return answer;
    }

    function detail(row) {
      if (!details.has(row)) {
        if (details.size > 500) details.delete(details.keys().next().value);
        details.set(row, ask(`api/rows/${row}`).catch((error) => { details.delete(row); throw error; }));
      }
      return details.get(row);
    }

    return {
      readOnly: false,
      table: () => ask("api/table"),
      state: (since) => ask(`api/state?since=${since}`),
      detail,
      image: (row, size) => `pictures/${size}/${row}`,
      send,
      waiting: () => waiting,
    };
  }

  function fromFile(content) {
    return {
      readOnly: true,
      table: async () => content.table,
      state: async () => content.state,
      detail: async (row) => content.rows[row],
      image: (row) => content.pictures[row],
      send: async () => { throw new Error("this is a read-only copy"); },
      waiting: () => 0,
    };
  }
})();
