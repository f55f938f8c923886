/**
 * The npm package's client: that of broadcast.d.ts, with presence (presence.d.ts).
 *
 *     import { connect } from "caddy-broadcast"
 *     const hub = connect<{ price: { row: number; price: number } }>("/ws")
 *     hub.on("price", ({ row, price }) => …)
 */
export * from "./broadcast.js"
export { connect, type PresenceHub as Hub } from "./presence.js"
