"use strict";
// socket.io, as its documentation broadcasts.
const { createServer } = require("node:http");
const { Server } = require("socket.io");
const { obey } = require("./common.js");

const http = createServer();
const io = new Server(http, { transports: ["websocket"], pingInterval: 3600000, pingTimeout: 3600000 });
http.listen(0, "127.0.0.1", () => console.log(http.address().port));
obey((text) => {
  io.emit("change", text);
  return io.of("/").sockets.size;
});
