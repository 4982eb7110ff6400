"use strict";
// Node's `ws`, as its documentation broadcasts.
const { WebSocketServer } = require("ws");
const { obey } = require("./common.js");

const server = new WebSocketServer({ port: 0, host: "127.0.0.1", perMessageDeflate: false }, () => {
  console.log(server.address().port);
});
obey((text) => {
  for (const client of server.clients) client.send(text);
  return server.clients.size;
});
