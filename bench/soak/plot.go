//go:build linux

package main

import (
	"bytes"
	"fmt"
)

// The size of the plot: the panels are below each other, since their units differ.
const (
	plotWidth   = 920
	panelHeight = 130
	panelLeft   = 60
	panelRight  = 20
	panelTop    = 34 // of a panel, for its title
)

// plot draws the samples, a panel for each figure, all from zero, so that what looks flat is flat.
func plot(samples []sample) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="system-ui, sans-serif" font-size="12">`+"\n",
		plotWidth, len(figures)*panelHeight+30)
	b.WriteString(`<style>text{fill:#333}.title{font-weight:600;font-size:14px}.end{text-anchor:end}.mid{text-anchor:middle}` +
		`.line{fill:none;stroke:#1f88c0;stroke-width:1.5}.axis{stroke:#bbb}.quarter{stroke:#bbb;stroke-dasharray:3 4}` +
		`@media(prefers-color-scheme:dark){text{fill:#ddd}.axis,.quarter{stroke:#666}}</style>` + "\n")
	if len(samples) > 0 {
		for i := range figures {
			panel(&b, i, samples)
		}
		minutes(&b, samples)
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}

// panel draws one figure.
func panel(b *bytes.Buffer, i int, samples []sample) {
	f, most := figures[i], 1.0
	for _, s := range samples {
		most = max(most, f.of(s))
	}
	most *= 1.1
	top, bottom := float64(i*panelHeight+panelTop), float64((i+1)*panelHeight-8)
	y := func(v float64) float64 { return bottom - (bottom-top)*v/most }
	fmt.Fprintf(b, `<text class="title" x="%d" y="%.0f">%s</text>`+"\n", panelLeft, top-10, f.name)
	for _, v := range []float64{0, most / 1.1} {
		fmt.Fprintf(b, `<text class="end" x="%d" y="%.1f">%.0f</text><line class="axis" x1="%d" x2="%d" y1="%.1f" y2="%.1f"/>`+"\n",
			panelLeft-6, y(v)+4, v, panelLeft, plotWidth-panelRight, y(v), y(v))
	}
	for q := 1; q < 4; q++ {
		x := panelLeft + float64(plotWidth-panelLeft-panelRight)*float64(q)/4
		fmt.Fprintf(b, `<line class="quarter" x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f"/>`+"\n", x, x, top, bottom)
	}
	b.WriteString(`<polyline class="line" points="`)
	for _, s := range samples {
		fmt.Fprintf(b, "%.1f,%.1f ", at(s, samples), y(f.of(s)))
	}
	b.WriteString("\"/>\n")
}

// at returns where a sample is in a panel.
func at(s sample, samples []sample) float64 {
	return panelLeft + float64(plotWidth-panelLeft-panelRight)*float64(s.at)/float64(samples[len(samples)-1].at)
}

// minutes draws the axis that all panels share.
func minutes(b *bytes.Buffer, samples []sample) {
	last := samples[len(samples)-1].at
	for q := range 5 {
		x := panelLeft + float64(plotWidth-panelLeft-panelRight)*float64(q)/4
		class := "mid"
		if q == 4 {
			class = "end"
		}
		fmt.Fprintf(b, `<text class="%s" x="%.1f" y="%d">%.1f min</text>`+"\n", class, x, len(figures)*panelHeight+16, last.Minutes()*float64(q)/4)
	}
}
