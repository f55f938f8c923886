import { useEffect, useState } from "react"
import type { SharedHub } from "caddy-broadcast/react"
import type { Events } from "./App"

let renders = 0

/** Counts each time that the component which calls it has been rendered. */
export const useCount = () => useEffect(() => void renders++)

/** Shows how many prices arrive, and how often the table is rendered for them. */
export function Figures({ hub }: { hub: SharedHub<Events> | undefined }) {
	const [figures, setFigures] = useState({ prices: 0, renders: 0 })
	useEffect(() => {
		let prices = 0
		const stop = hub?.on("price", () => prices++)
		let last = performance.now()
		const timer = setInterval(() => {
			const now = performance.now()
			const rate = (n: number) => Math.round((1000 * n) / (now - last))
			setFigures({ prices: rate(prices), renders: rate(renders) })
			prices = renders = 0
			last = now
		}, 1000)
		return () => {
			clearInterval(timer)
			stop?.()
		}
	}, [hub])
	return (
		<p id="figures">
			{figures.prices} prices/s, rendered {figures.renders} times/s
		</p>
	)
}
