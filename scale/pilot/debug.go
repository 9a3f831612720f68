package pilot

import "fmt"

// Debug is a summary of what was learnt.
func (p *Pilot) Debug() string {
	s := &p.state
	cores, beta := s.Capacity.Pod(), s.Tilt
	pod, node := p.leads()
	out := fmt.Sprintf("cores %.2f tilt %.2f base %.6f demand %.4f wait %.4f leads %v %v rest %.3f\n", cores, beta, s.Capacity.Base, s.Capacity.Demand(), s.Capacity.Wait, pod, node, s.Forecast.Rest)
	for _, u := range []float64{.5, .6, .65, .7, .75, .8, .85, .9, .95} {
		out += fmt.Sprintf(" u%.2f:%.2e", u, s.Capacity.Bad(40*u, 40))
	}
	out += "\n"
	for c := range s.Capacity.Bins {
		for i := range s.Capacity.Bins[c] {
			b := s.Capacity.Bins[c][i]
			if b.Samples > 3 {
				out += fmt.Sprintf("  [%d %.3f: n%.0f bad %.2e]", c, float64(i)*0.025, b.Samples, b.Bad/b.Done)
			}
		}
	}
	out += "\n"
	for h := range s.Forecast.Loss[1] {
		sh := s.Forecast.Inside[h]
		out += fmt.Sprintf("  h%d judged %.0f inside %.3f wide %.2f loss %.2f rising %.2f\n", h, s.Forecast.Judged[h], sh, s.Forecast.Wide[h], s.Forecast.Loss[1][h], s.Forecast.Loss[2][h])
	}
	out += fmt.Sprintf("seasons %d %d %d\n", s.Forecast.Seasons[0].Period, s.Forecast.Seasons[1].Period, s.Forecast.Seasons[2].Period)
	return out
}
