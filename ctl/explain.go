package ctl

import (
	"context"
	"crypto/x509"
	"errors"
	"net"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"

	"seaway.dev/seaway/hub/join"
	"seaway.dev/seaway/hub/token"
)

// explain turns any error into what happened, how to mend it, and the exit code.
func explain(err error) *failure {
	var f *failure
	if errors.As(err, &f) {
		if f.next == "" && f.err != nil {
			if g := classify(f.err); g != nil {
				f.next = g.next
				if f.code == ExitFailed {
					f.code = g.code
				}
			}
		}
		if err.Error() != f.text { // wrapped: keep what was being done
			return &failure{text: err.Error(), next: f.next, code: f.code, err: err}
		}
		return f
	}
	if g := classify(err); g != nil {
		return g
	}
	if s := err.Error(); strings.HasPrefix(s, "unknown command") || strings.Contains(s, "required flag") ||
		strings.Contains(s, "arg(s)") || strings.HasPrefix(s, "unknown flag") {
		return usage("%s", s).then("seaway --help")
	}
	return &failure{text: err.Error(), code: ExitFailed, err: err}
}

// classify knows the errors of API servers and of the way to them; nil if it is none of these.
func classify(err error) *failure {
	var no *join.Refusal
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	var op *net.OpError
	out := func(code int, next string) *failure {
		return &failure{text: err.Error(), next: next, code: code, err: err}
	}
	switch {
	case errors.As(err, &no):
		return &failure{text: no.Message, next: no.Next, code: ExitRefused, err: err}
	case errors.Is(err, token.ErrMalformed):
		return out(ExitUsage, "")
	case meta.IsNoMatchError(err):
		return out(ExitRefused, "this cluster does not know that kind: if it is to be the hub, `seaway install hub`; else name the hub with --kubeconfig or --context")
	case apierrors.IsUnauthorized(err):
		return out(ExitRefused, "the API server does not know you: renew your credential, or choose another --context")
	case apierrors.IsForbidden(err):
		return out(ExitRefused, "you lack a right there: use an account with cluster-admin, or choose another --context")
	case apierrors.IsInvalid(err):
		return out(ExitUsage, "")
	case apierrors.IsConflict(err):
		return out(ExitFailed, "somebody changed it at the same time: run this again")
	case errors.As(err, &unknown), errors.As(err, &host):
		return out(ExitUnreachable, "the API server shows another certificate than the kubeconfig says: check --kubeconfig and --context")
	case errors.As(err, &op):
		return out(ExitUnreachable, "check that the API server runs and can be reached from here, and --kubeconfig and --context")
	case errors.Is(err, context.DeadlineExceeded):
		return out(ExitUnreachable, "")
	case errors.Is(err, context.Canceled):
		return &failure{text: "interrupted", next: "run the same command again to go on", code: ExitFailed, err: err}
	}
	return nil
}
