package autoscaler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"k8s.io/apimachinery/pkg/types"
)

// keda answers KEDA as an external push scaler (externalscaler.proto of KEDA 2): the metric is the number of replicas
// that is wanted, its target is 1 for each replica. The trigger names the Autoscaler:
//
//	triggers:
//	- type: external-push
//	  metadata: {scalerAddress: "seaway-autoscaler.seaway-system:9100", autoscaler: web}
//
// The HPA that KEDA makes ignores changes within its tolerance (10 %): set behavior.scaleUp.tolerance 0 where the
// cluster has it. The Autoscaler's own mode should be Shadow then, so that one alone writes the replicas.
type keda struct {
	addr   string
	wishes *wishes
	log    *slog.Logger
}

// NeedLeaderElection implements manager.LeaderElectionRunnable: KEDA asks any replica.
func (k *keda) NeedLeaderElection() bool { return false }

const kedaMetric = "seaway-wanted-replicas"

// Start implements manager.Runnable.
func (k *keda) Start(ctx context.Context) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", k.addr)
	if err != nil {
		return fmt.Errorf("listen for KEDA: %w", err)
	}
	return k.serve(ctx, l)
}

func (k *keda) serve(ctx context.Context, l net.Listener) error {
	s := grpc.NewServer(grpc.ForceServerCodec(wire{}))
	s.RegisterService(&kedaService, k)
	done := context.AfterFunc(ctx, s.Stop)
	defer done()
	if err := s.Serve(l); err != nil && !errors.Is(err, grpc.ErrServerStopped) && ctx.Err() == nil {
		return fmt.Errorf("serve KEDA: %w", err)
	}
	return nil
}

// kedaService describes externalscaler.ExternalScaler.
var kedaService = grpc.ServiceDesc{
	ServiceName: "externalscaler.ExternalScaler",
	HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{
		unary("IsActive", func(k *keda, m message) (message, error) {
			n, _, err := k.wanted(m)
			return message(nil).flag(1, n > 0), err
		}),
		unary("GetMetricSpec", func(_ *keda, _ message) (message, error) {
			return message(nil).bytes(1, message(nil).bytes(1, []byte(kedaMetric)).number(2, 1).double(3, 1)), nil
		}),
		unary("GetMetrics", func(k *keda, m message) (message, error) {
			n, _, err := k.wanted(m.sub(1)) // GetMetricsRequest wraps the ScaledObjectRef
			return message(nil).bytes(1, message(nil).bytes(1, []byte(kedaMetric)).number(2, uint64(n)).double(3, float64(n))), err
		}),
	},
	Streams: []grpc.StreamDesc{{StreamName: "StreamIsActive", ServerStreams: true, Handler: streamActive}},
}

func unary(name string, answer func(*keda, message) (message, error)) grpc.MethodDesc {
	return grpc.MethodDesc{MethodName: name, Handler: func(srv any, ctx context.Context, dec func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		var in message
		if err := dec(&in); err != nil {
			return nil, err
		}
		out, err := answer(srv.(*keda), in)
		if err != nil {
			return nil, err
		}
		return &out, nil
	}}
}

// streamActive pushes whenever the wish changes: KEDA then asks for the metric at once.
func streamActive(srv any, stream grpc.ServerStream) error {
	k := srv.(*keda)
	var in message
	if err := stream.RecvMsg(&in); err != nil {
		return err
	}
	last := -1
	for {
		n, changed, err := k.wanted(in)
		if err != nil && status.Code(err) != codes.Unavailable {
			return err
		}
		if err == nil && n != last {
			last = n
			out := message(nil).flag(1, n > 0)
			if err := stream.SendMsg(&out); err != nil {
				return err
			}
		}
		select {
		case <-stream.Context().Done():
			return nil
		case <-changed:
		}
	}
}

// wanted finds the Autoscaler that a ScaledObjectRef names and how many replicas it wants.
func (k *keda) wanted(ref message) (int, <-chan struct{}, error) {
	key := types.NamespacedName{Name: string(ref.sub(1)), Namespace: string(ref.sub(2))}
	for _, pair := range ref.subs(3) {
		if string(pair.sub(1)) == "autoscaler" {
			key.Name = string(pair.sub(2))
		}
	}
	n, ok, changed := k.wishes.get(key)
	if !ok {
		return 0, changed, status.Errorf(codes.Unavailable, "no Autoscaler %s at work: make one, or name it in the trigger's metadata as autoscaler", key)
	}
	return n, changed, nil
}

// message is a protocol buffer message in its wire form. KEDA's are so few and small that they are read and written
// field by field.
type message []byte

func (m message) bytes(field protowire.Number, b []byte) message {
	return protowire.AppendBytes(protowire.AppendTag(m, field, protowire.BytesType), b)
}

func (m message) number(field protowire.Number, v uint64) message {
	return protowire.AppendVarint(protowire.AppendTag(m, field, protowire.VarintType), v)
}

func (m message) flag(field protowire.Number, v bool) message {
	return m.number(field, protowire.EncodeBool(v))
}

func (m message) double(field protowire.Number, v float64) message {
	return protowire.AppendFixed64(protowire.AppendTag(m, field, protowire.Fixed64Type), math.Float64bits(v))
}

// subs are the values of a length-delimited field; what makes no sense ends them.
func (m message) subs(field protowire.Number) []message {
	var out []message
	for len(m) > 0 {
		n, typ, size := protowire.ConsumeTag(m)
		if size < 0 {
			return out
		}
		m = m[size:]
		if typ == protowire.BytesType {
			b, size := protowire.ConsumeBytes(m)
			if size < 0 {
				return out
			}
			if n == field {
				out = append(out, b)
			}
			m = m[size:]
			continue
		}
		if size = protowire.ConsumeFieldValue(n, typ, m); size < 0 {
			return out
		}
		m = m[size:]
	}
	return out
}

// sub is the last value of a field, nil if there is none.
func (m message) sub(field protowire.Number) message {
	if all := m.subs(field); len(all) > 0 {
		return all[len(all)-1]
	}
	return nil
}

// wire passes messages through as they are.
type wire struct{}

// Marshal implements encoding.Codec.
func (wire) Marshal(v any) ([]byte, error) {
	m, ok := v.(*message)
	if !ok {
		return nil, fmt.Errorf("write %T: want a message", v)
	}
	return *m, nil
}

// Unmarshal implements encoding.Codec.
func (wire) Unmarshal(b []byte, v any) error {
	m, ok := v.(*message)
	if !ok {
		return fmt.Errorf("read %T: want a message", v)
	}
	*m = append(message(nil), b...)
	return nil
}

// Name implements encoding.Codec.
func (wire) Name() string { return "proto" }
