package autoscaler

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protowire"

	"seaway.dev/seaway/api/v1alpha1"
)

// TestPrometheus asks a server that answers like Prometheus.
func TestPrometheus(t *testing.T) {
	answers := map[string]string{
		"rate":   `{"resultType":"vector","result":[{"metric":{},"value":[1700000000,"120.5"]}]}`,
		"scalar": `{"resultType":"scalar","result":[1700000000,"3"]}`,
		"none":   `{"resultType":"vector","result":[]}`,
		"many":   `{"resultType":"vector","result":[{"metric":{"a":"1"},"value":[1700000000,"1"]},{"metric":{"a":"2"},"value":[1700000000,"2"]}]}`,
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			t.Error(err)
		}
		data, ok := answers[r.Form.Get("query")]
		if !ok {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, `{"status":"error","errorType":"bad_data","error":"parse error"}`)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"status": "success", "data": json.RawMessage(data)})
	}))
	defer srv.Close()
	s := newSource(srv.URL)
	r, err := s.read(t.Context(), v1alpha1.MetricSource{Rate: "rate", Busy: "scalar", Bad: "none"})
	if err != nil || r.rate != 120.5 || r.busy != 3 || r.bad != 0 || !math.IsNaN(r.inFlight) {
		t.Errorf("read %+v, %v", r, err)
	}
	if r, err = s.read(t.Context(), v1alpha1.MetricSource{Rate: "none", Busy: "none", Bad: "none"}); err != nil || !math.IsNaN(r.rate) || !math.IsNaN(r.bad) {
		t.Errorf("without any series: %+v, %v", r, err)
	}
	for query, want := range map[string]string{"many": "2 values", "((": "parse error"} {
		if _, err := s.read(t.Context(), v1alpha1.MetricSource{Rate: query, Busy: "rate"}); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "metrics.rate") {
			t.Errorf("%s: %v", query, err)
		}
	}
	if _, err := newSource("").read(t.Context(), v1alpha1.MetricSource{Rate: "rate"}); err == nil || !strings.Contains(err.Error(), "--prometheus") {
		t.Errorf("no URL: %v", err)
	}
}

// TestKEDA speaks to the scaler as KEDA does.
func TestKEDA(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	k := &keda{wishes: newWishes(), log: slog.New(slog.NewTextHandler(io.Discard, nil))}
	done := make(chan error, 1)
	go func() { done <- k.serve(ctx, l) }()
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.ForceCodec(wire{})))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ref := message(nil).bytes(1, []byte("web-scaledobject")).bytes(2, []byte("shop")).bytes(3, message(nil).bytes(1, []byte("autoscaler")).bytes(2, []byte("web")))
	call := func(method string, in message) (message, error) {
		var out message
		err := conn.Invoke(ctx, "/externalscaler.ExternalScaler/"+method, &in, &out)
		return out, err
	}
	if _, err := call("GetMetrics", message(nil).bytes(1, ref)); err == nil || !strings.Contains(err.Error(), "shop/web") {
		t.Errorf("an Autoscaler that is not there: %v", err)
	}
	k.wishes.set(webKey, 7)
	spec, err := call("GetMetricSpec", ref)
	if err != nil || string(spec.sub(1).sub(1)) != kedaMetric || double(spec.sub(1), 3) != 1 {
		t.Errorf("spec %x, %v", spec, err)
	}
	m, err := call("GetMetrics", message(nil).bytes(1, ref))
	if err != nil || double(m.sub(1), 3) != 7 {
		t.Errorf("metrics %x, %v", m, err)
	}
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, "/externalscaler.ExternalScaler/StreamIsActive")
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.SendMsg(&ref); err != nil {
		t.Fatal(err)
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	var first, second message
	if err := stream.RecvMsg(&first); err != nil || len(first) != 2 || first[1] != 1 {
		t.Fatalf("pushed %x, %v", first, err)
	}
	k.wishes.set(webKey, 9)
	if err := stream.RecvMsg(&second); err != nil {
		t.Fatalf("nothing is pushed when the wish changes: %v", err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// AskKEDA asks a replica of the role how many pods an Autoscaler wants, as KEDA does.
func AskKEDA(ctx context.Context, addr, namespace, name string) (int, error) {
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.ForceCodec(wire{})))
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	in, out := message(nil).bytes(1, message(nil).bytes(1, []byte(name)).bytes(2, []byte(namespace))), message(nil)
	err = conn.Invoke(ctx, "/externalscaler.ExternalScaler/GetMetrics", &in, &out)
	return int(double(out.sub(1), 3)), err
}

func double(m message, field protowire.Number) float64 {
	for len(m) > 0 {
		n, typ, size := protowire.ConsumeTag(m)
		if size < 0 {
			return math.NaN()
		}
		m = m[size:]
		if n == field && typ == protowire.Fixed64Type {
			v, _ := protowire.ConsumeFixed64(m)
			return math.Float64frombits(v)
		}
		if size = protowire.ConsumeFieldValue(n, typ, m); size < 0 {
			return math.NaN()
		}
		m = m[size:]
	}
	return math.NaN()
}

func FuzzMessage(f *testing.F) {
	f.Add([]byte(message(nil).bytes(1, []byte("a")).number(2, 3).double(3, 1)))
	f.Add([]byte{0xff, 0xff})
	f.Fuzz(func(_ *testing.T, b []byte) {
		k := &keda{wishes: newWishes()}
		_, _, _ = k.wanted(b)
	})
}

// TestPulse stands still.
func TestPulse(t *testing.T) {
	var p pulse
	at := time.Now()
	for _, c := range []struct {
		after time.Duration
		want  bool
	}{{0, true}, {time.Second, true}, {4 * time.Second, true}, {20 * time.Second, false}, {time.Second, false}, {5 * time.Second, false}, {5 * time.Second, false}, {time.Second, true}, {time.Second, true}} {
		at = at.Add(c.after)
		if got := p.steady(at); got != c.want {
			t.Errorf("%s after the last look: steady is %v", c.after, got)
		}
	}
}
