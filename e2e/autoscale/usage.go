package autoscale

import (
	"context"
	"encoding/json"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
)

type usage struct {
	millis int64
	at     time.Time
}

// usage asks metrics-server, as the HPA's controller does.
func (s *Site) usage(ctx context.Context) (map[string]usage, error) {
	b, err := s.rest.Get().AbsPath("/apis/metrics.k8s.io/v1beta1/namespaces/" + Namespace + "/pods").DoRaw(ctx)
	if err != nil {
		return nil, err
	}
	var list struct {
		Items []struct {
			Metadata   struct{ Name string }
			Timestamp  time.Time
			Containers []struct {
				Usage struct{ CPU resource.Quantity }
			}
		}
	}
	if err := json.Unmarshal(b, &list); err != nil {
		return nil, err
	}
	out := map[string]usage{}
	for _, i := range list.Items {
		u := usage{at: i.Timestamp}
		for _, c := range i.Containers {
			u.millis += c.Usage.CPU.MilliValue()
		}
		out[i.Metadata.Name] = u
	}
	return out, nil
}
