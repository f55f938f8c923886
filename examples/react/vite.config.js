import react from "@vitejs/plugin-react"

export default {
	plugins: [react()],
	server: { proxy: { "/ws": { target: "http://localhost:8080", ws: true } } }, // for npm run dev, beside Caddy
}
