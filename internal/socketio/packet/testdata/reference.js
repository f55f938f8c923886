// What socket.io-parser and engine.io-parser do. Each line of standard input is a JSON object, and so is each line of output:
//
//   {"decode": ["2[\"a\"]", {"base64": "AQID"}]}    the messages of a client, or of a server; -> {"packets": […]} or {"error": "…"}
//   {"encode": {"type": 2, "nsp": "/", "data": […]}} -> {"messages": […]}
//   {"payload": "4a\u001ebAQID"}                    -> {"packets": […]}
//   {"join": [{"type": "message", "data": "a"}]}    -> {"payload": "…"}
//
// Everywhere {"base64": "…"} stands for binary data. It ends with the status 3 if the packages cannot be loaded: NODE_PATH
// names the directory that they are in.
let socket, engine;
try {
  socket = require('socket.io-parser');
  engine = require('engine.io-parser');
} catch {
  process.exit(3);
}
const show = value => {
  if (Buffer.isBuffer(value)) return {base64: value.toString('base64')};
  if (Array.isArray(value)) return value.map(show);
  if (value && typeof value === 'object') {
    const shown = Object.create(null);
    for (const key of Object.keys(value)) shown[key] = show(value[key]);
    return shown;
  }
  return value;
};
const read = value => {
  if (Array.isArray(value)) return value.map(read);
  if (value && typeof value === 'object') {
    const keys = Object.keys(value);
    if (keys.length === 1 && keys[0] === 'base64') return Buffer.from(value.base64, 'base64');
    return Object.fromEntries(keys.map(key => [key, read(value[key])]));
  }
  return value;
};
const commands = {
  decode(messages) {
    const packets = [];
    const decoder = new socket.Decoder();
    decoder.on('decoded', p => packets.push(show(p)));
    try {
      for (const m of messages) decoder.add(read(m));
    } catch (e) {
      return {packets, error: e.message};
    }
    return {packets};
  },
  encode: packet => ({messages: new socket.Encoder().encode(read(packet)).map(show)}),
  payload: text => ({packets: engine.decodePayload(text).map(show)}),
  join(packets) {
    let payload;
    engine.encodePayload(read(packets), p => { payload = p; });
    return {payload};
  },
};
for (const line of require('fs').readFileSync(0, 'utf8').split('\n').filter(Boolean)) {
  const [command, argument] = Object.entries(JSON.parse(line))[0];
  console.log(JSON.stringify(commands[command](argument)));
}
