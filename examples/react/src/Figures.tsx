import { useEffect, useState } from "react"
import type { SharedHub } from "caddy-broadcast/react"
import type { Events } from "./App"

// Figures shows how many prices arrive, and how often React renders for them.
export function Figures({ hub }: { hub: SharedHub<Events> | undefined }) {
	const [figures, setFigures] = useState({ prices: 0, renders: 0 })
	useEffect(() => {
		let prices = 0
		let renders = 0
		const stops = [hub?.on("price", () => prices++), hub?.frame(() => renders++, { event: "price" })]
		const timer = setInterval(() => {
			setFigures({ prices, renders })
			prices = renders = 0
		}, 1000)
		return () => {
			clearInterval(timer)
			stops.forEach(stop => stop?.())
		}
	}, [hub])
	return (
		<p id="figures">
			{figures.prices} prices/s, rendered {figures.renders} times/s
		</p>
	)
}
