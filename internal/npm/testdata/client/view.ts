// What the pages of all frameworks have in common: what they are told to show, and what is counted.
export type Events = { price: { row: number; price: number } }

export interface View {
	url: string | undefined // nothing is mounted without one
	channel: string
}

export const first: View = { url: "/ws?user=ann", channel: "default" }

declare global {
	var show: (changes: Partial<View>) => void
	var seen: { sockets: number; renders: number; frames: number; gaps: number }
}

globalThis.seen = { sockets: 0, renders: 0, frames: 0, gaps: 0 }

globalThis.WebSocket = class extends WebSocket {
	constructor(url: string | URL, protocols?: string | string[]) {
		super(url, protocols)
		seen.sockets++
	}
}

requestAnimationFrame(function count() {
	seen.frames++
	requestAnimationFrame(count)
})
