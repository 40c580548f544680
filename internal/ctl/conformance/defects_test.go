// SPDX-License-Identifier: Apache-2.0

package conformance_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	kmsapi "k8s.io/kms/apis/v2"
)

// defect is one defect of a plugin.
type defect struct {
	name string
	put  func(*plugin)
	// fails are the only checks that fail because of it.
	fails []string
	// blocks is set if some checks then cannot be judged.
	blocks bool
	// hangs is set if some calls are never answered.
	hangs bool
	// only limits the checks, for a plugin that is slow or cannot handle the others.
	only string
}

// decodable are the checks that send only decodable messages.
const decodable = "^(status|encrypt|decrypt|refusal|deadline|parallel|connection|socket)-"

// defects has a defect for each check; see TestEachCheckHasADefect.
func defects() []defect {
	return []defect{
		{name: "Status is an error", fails: []string{"status-answers"}, blocks: true, put: func(p *plugin) {
			p.status = func(context.Context, *kmsapi.StatusRequest) (*kmsapi.StatusResponse, error) {
				return nil, errors.New("not yet")
			}
		}},
		{name: "version of the past", fails: []string{"status-version"}, put: func(p *plugin) {
			p.onStatus(func(r *kmsapi.StatusResponse) { r.Version = "v2alpha1" })
		}},
		{name: "version that changes", fails: []string{"status-version-stable"}, put: func(p *plugin) {
			var calls atomic.Int32
			p.onStatus(func(r *kmsapi.StatusResponse) {
				if calls.Add(1)%2 == 0 {
					r.Version = "v2beta1"
				}
			})
		}},
		{name: "healthz in capitals", fails: []string{"status-healthz"}, put: func(p *plugin) {
			p.onStatus(func(r *kmsapi.StatusResponse) { r.Healthz = "OK" })
		}},
		{name: "no key_id", fails: []string{"status-key-id", "encrypt-key-id"}, put: func(p *plugin) {
			p.onStatus(func(r *kmsapi.StatusResponse) { r.KeyId = "" })
		}},
		{name: "long key_id", fails: []string{"status-key-id"}, put: func(p *plugin) { p.rename(strings.Repeat("k", 1025)) }},
		{name: "key_id to and fro", fails: []string{"status-key-id-stable"}, put: func(p *plugin) {
			var calls atomic.Int32
			p.onStatus(func(r *kmsapi.StatusResponse) {
				if calls.Add(1)%2 == 0 {
					r.KeyId = "kek-2"
				}
			})
		}},
		{name: "Encrypt is an error", fails: []string{"encrypt-answers"}, blocks: true, put: func(p *plugin) {
			p.encrypt = func(context.Context, *kmsapi.EncryptRequest) (*kmsapi.EncryptResponse, error) {
				return nil, errors.New("not yet")
			}
		}},
		{name: "Encrypt ahead of Status", fails: []string{"encrypt-key-id"}, put: func(p *plugin) {
			status := p.status
			p.rename("kek-2")
			p.status = status
		}},
		{name: "long ciphertext", fails: []string{"encrypt-ciphertext-size"}, put: (*plugin).padCiphertext},
		{name: "annotation that is no domain", fails: []string{"encrypt-annotation-keys"}, put: func(p *plugin) {
			p.onEncrypt(func(_ *kmsapi.EncryptRequest, r *kmsapi.EncryptResponse) {
				r.Annotations = map[string][]byte{"example.com/mark": []byte("1")}
			})
		}},
		{name: "large annotations", fails: []string{"encrypt-annotation-size"}, only: "^(status|encrypt|decrypt|refusal)", put: func(p *plugin) {
			p.onEncrypt(func(_ *kmsapi.EncryptRequest, r *kmsapi.EncryptResponse) {
				r.Annotations = map[string][]byte{"mark.example.com": make([]byte, 32<<10)}
			})
			decrypt := p.decrypt
			p.decrypt = func(ctx context.Context, req *kmsapi.DecryptRequest) (*kmsapi.DecryptResponse, error) {
				if len(req.GetAnnotations()) == 1 {
					delete(req.Annotations, "mark.example.com")
				}
				return decrypt(ctx, req)
			}
		}},
		{name: "seed in an annotation", fails: []string{"encrypt-hides-seed"}, put: func(p *plugin) {
			p.onEncrypt(func(req *kmsapi.EncryptRequest, r *kmsapi.EncryptResponse) {
				text := base64.StdEncoding.EncodeToString(append([]byte("seed="), req.GetPlaintext()...))
				r.Annotations = map[string][]byte{"debug.example.com": []byte(text)}
			})
		}},
		{name: "half of the seed decides", fails: []string{"encrypt-distinct", "encrypt-varies"}, put: (*plugin).keepByHalf},
		{name: "no random nonce", fails: []string{"encrypt-varies"}, put: func(p *plugin) {
			p.onEncrypt(func(req *kmsapi.EncryptRequest, r *kmsapi.EncryptResponse) {
				sum := sha256.Sum256(req.GetPlaintext())
				r.Ciphertext = p.seal(sum[:12:12], req.GetPlaintext())
			})
		}},
		{name: "slow Encrypt", fails: []string{"encrypt-latency"}, only: "^(status|encrypt-(answers|key|ciphertext|varies|latency|empty))", put: func(p *plugin) {
			p.onEncrypt(func(*kmsapi.EncryptRequest, *kmsapi.EncryptResponse) { <-time.After(105 * time.Millisecond) })
		}},
		{name: "Encrypt of nothing", fails: []string{"encrypt-empty"}, put: func(p *plugin) {
			encrypt := p.encrypt
			p.encrypt = func(ctx context.Context, req *kmsapi.EncryptRequest) (*kmsapi.EncryptResponse, error) {
				if len(req.GetPlaintext()) == 0 {
					return &kmsapi.EncryptResponse{Ciphertext: p.seal(make([]byte, 12), nil), KeyId: keyID}, nil
				}
				return encrypt(ctx, req)
			}
		}},
		{name: "Encrypt of 64 KiB", fails: []string{"encrypt-oversized"}, put: func(p *plugin) {
			encrypt := p.encrypt
			p.encrypt = func(ctx context.Context, req *kmsapi.EncryptRequest) (*kmsapi.EncryptResponse, error) {
				if len(req.GetPlaintext()) == 64<<10 {
					return &kmsapi.EncryptResponse{Ciphertext: p.seal(make([]byte, 12), req.GetPlaintext()), KeyId: keyID}, nil
				}
				return encrypt(ctx, req)
			}
		}},

		{name: "bound to the uid", fails: []string{"decrypt-round-trip"}, blocks: true, put: func(p *plugin) {
			p.onEncrypt(func(req *kmsapi.EncryptRequest, r *kmsapi.EncryptResponse) {
				r.Annotations = map[string][]byte{"uid.example.com": []byte(req.GetUid())}
			})
			p.beforeDecrypt(func(_ context.Context, req *kmsapi.DecryptRequest) error {
				if string(req.GetAnnotations()["uid.example.com"]) != req.GetUid() {
					return invalid("another uid")
				}
				return nil
			})
		}},
		{name: "seeds as C strings", fails: []string{"decrypt-any-bytes"}, put: func(p *plugin) {
			// Four, because one can occur in a random seed.
			p.onDecrypt(func(_ *kmsapi.DecryptRequest, r *kmsapi.DecryptResponse) {
				r.Plaintext, _, _ = bytes.Cut(r.GetPlaintext(), make([]byte, 4))
			})
		}},
		{name: "seeds in blocks of 16", fails: []string{"decrypt-any-size"}, put: func(p *plugin) {
			p.onDecrypt(func(_ *kmsapi.DecryptRequest, r *kmsapi.DecryptResponse) {
				r.Plaintext = append(r.Plaintext, make([]byte, (16-len(r.GetPlaintext())%16)%16)...)
			})
		}},
		{name: "known on its connection only", fails: []string{"decrypt-again"}, put: (*plugin).bindToConnection},
		{name: "slow Decrypt", fails: []string{"decrypt-latency"}, put: func(p *plugin) {
			p.onDecrypt(func(*kmsapi.DecryptRequest, *kmsapi.DecryptResponse) { <-time.After(11 * time.Millisecond) })
		}},

		{name: "no authentication", fails: []string{"refusal-ciphertext-tampered"}, put: (*plugin).trustKnownNonces},
		{name: "what is not encrypted passes through", fails: []string{"refusal-ciphertext-foreign"}, put: func(p *plugin) {
			decrypt := p.decrypt
			p.decrypt = func(ctx context.Context, req *kmsapi.DecryptRequest) (*kmsapi.DecryptResponse, error) {
				if len(req.GetCiphertext()) == 32 {
					return &kmsapi.DecryptResponse{Plaintext: req.GetCiphertext()}, nil
				}
				return decrypt(ctx, req)
			}
		}},
		{name: "Decrypt of nothing", fails: []string{"refusal-ciphertext-empty"}, put: func(p *plugin) {
			decrypt := p.decrypt
			p.decrypt = func(ctx context.Context, req *kmsapi.DecryptRequest) (*kmsapi.DecryptResponse, error) {
				if len(req.GetCiphertext()) == 0 {
					return &kmsapi.DecryptResponse{}, nil
				}
				return decrypt(ctx, req)
			}
		}},
		{name: "any key_id that contains the key's", fails: []string{"refusal-key-id-unknown"}, put: func(p *plugin) {
			p.beforeDecrypt(func(_ context.Context, req *kmsapi.DecryptRequest) error {
				if strings.HasSuffix(req.GetKeyId(), keyID) {
					req.KeyId = keyID
				}
				return nil
			})
		}},
		{name: "each version has a pad of its own", fails: []string{"refusal-key-id-altered"}, put: func(p *plugin) {
			decrypt := p.decrypt
			p.decrypt = func(ctx context.Context, req *kmsapi.DecryptRequest) (*kmsapi.DecryptResponse, error) {
				name, version, _ := strings.Cut(req.GetKeyId(), "-")
				if name != "kek" || len(version) != 1 || req.GetKeyId() == keyID {
					return decrypt(ctx, req)
				}
				req.KeyId = keyID
				resp, err := decrypt(ctx, req)
				for i := range resp.GetPlaintext() {
					resp.Plaintext[i] ^= version[0]
				}
				return resp, err
			}
		}},
		{name: "no key_id is the current one", fails: []string{"refusal-key-id-empty"}, put: func(p *plugin) {
			p.beforeDecrypt(func(_ context.Context, req *kmsapi.DecryptRequest) error {
				if req.GetKeyId() == "" {
					req.KeyId = keyID
				}
				return nil
			})
		}},
		{name: "annotations have a say", fails: []string{"refusal-annotations-changed"}, put: func(p *plugin) {
			p.onDecrypt(func(req *kmsapi.DecryptRequest, r *kmsapi.DecryptResponse) {
				for _, value := range req.GetAnnotations() {
					for i := range r.Plaintext {
						r.Plaintext[i] ^= value[i%len(value)]
					}
				}
			})
		}},
		{name: "long key_id is cut", fails: []string{"refusal-oversized"}, put: func(p *plugin) {
			p.beforeDecrypt(func(_ context.Context, req *kmsapi.DecryptRequest) error {
				if len(req.GetKeyId()) > 1024 {
					req.KeyId = req.KeyId[:len(keyID)]
				}
				return nil
			})
		}},
		{name: "errors without a code", fails: []string{"refusal-codes"}, put: func(p *plugin) {
			decrypt := p.decrypt
			p.decrypt = func(ctx context.Context, req *kmsapi.DecryptRequest) (*kmsapi.DecryptResponse, error) {
				resp, err := decrypt(ctx, req)
				if err != nil {
					err = errors.New("something is wrong")
				}
				return resp, err
			}
		}},

		{name: "strict decoding", fails: []string{"message-unknown-field"}, put: func(p *plugin) {
			p.options = append(p.options, grpc.ForceServerCodec(codec{strict: true}))
		}},
		{name: "every method exists", fails: []string{"message-unknown-method"}, put: func(p *plugin) {
			p.options = append(p.options, grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
				return stream.SendMsg(&kmsapi.StatusResponse{})
			}))
		}},
		{name: "lenient decoding", fails: []string{"message-garbage"}, put: func(p *plugin) {
			p.options = append(p.options, grpc.ForceServerCodec(codec{lenient: true}))
		}},
		{name: "messages of any size", fails: []string{"message-huge"}, put: func(p *plugin) {
			p.options = append(p.options, grpc.MaxRecvMsgSize(64<<20))
			encrypt := p.encrypt
			p.encrypt = func(ctx context.Context, req *kmsapi.EncryptRequest) (*kmsapi.EncryptResponse, error) {
				if len(req.GetPlaintext()) > 4<<20 {
					req.Plaintext = req.GetPlaintext()[:32]
				}
				return encrypt(ctx, req)
			}
		}},
		{name: "only localhost", fails: []string{"message-authority"}, put: func(p *plugin) {
			p.options = append(p.options, grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
				if md, _ := metadata.FromIncomingContext(ctx); fmt.Sprint(md.Get(":authority")) != "[localhost]" {
					return nil, invalid("malformed authority")
				}
				return handle(ctx, req)
			}))
		}},

		{name: "each deadline leaves something behind", hangs: true, fails: []string{"deadline-short"}, put: func(p *plugin) {
			p.leaks(kmsapi.KeyManagementService_Encrypt_FullMethodName, 0, late)
		}},
		{name: "each client that goes leaves something behind", hangs: true, fails: []string{"deadline-cancelled"}, only: decodable, put: func(p *plugin) {
			p.leaks(kmsapi.KeyManagementService_Decrypt_FullMethodName, 25*time.Millisecond, gone)
		}},
		{name: "answers are mixed up", fails: []string{"parallel-seeds"}, put: func(p *plugin) {
			p.shareDecrypts(func(a, b *kmsapi.DecryptRequest) bool { return !bytes.Equal(a.GetCiphertext(), b.GetCiphertext()) })
		}},
		{name: "who waits gets what has been wiped", fails: []string{"parallel-same-seed"}, put: func(p *plugin) {
			p.shareDecrypts(func(a, b *kmsapi.DecryptRequest) bool { return bytes.Equal(a.GetCiphertext(), b.GetCiphertext()) })
		}},
		{name: "Status waits for Encrypts", hangs: true, fails: []string{"parallel-status"}, put: func(p *plugin) {
			var busy atomic.Int32
			encrypt, status := p.encrypt, p.status
			p.encrypt = func(ctx context.Context, req *kmsapi.EncryptRequest) (*kmsapi.EncryptResponse, error) {
				busy.Add(1)
				defer busy.Add(-1)
				<-time.After(5 * time.Millisecond)
				return encrypt(ctx, req)
			}
			p.status = func(ctx context.Context, req *kmsapi.StatusRequest) (*kmsapi.StatusResponse, error) {
				if busy.Load() > 1 {
					<-ctx.Done()
					return nil, ctx.Err()
				}
				return status(ctx, req)
			}
		}},

		{name: "each connection that ends leaves something behind", hangs: true, fails: []string{"connection-cut"}, only: decodable, put: func(p *plugin) {
			p.leaks(kmsapi.KeyManagementService_Encrypt_FullMethodName, 25*time.Millisecond, gone)
		}},
		{name: "8 connections", hangs: true, fails: []string{"connection-many"}, put: func(p *plugin) { p.listener = atMost(8) }},
		{name: "connections in turn", hangs: true, fails: []string{"connection-silent"}, put: func(p *plugin) { p.listener = oneAfterTheOther }},

		{name: "errors quote the request", fails: []string{"errors-hide-seed"}, put: func(p *plugin) {
			encrypt := p.encrypt
			p.encrypt = func(ctx context.Context, req *kmsapi.EncryptRequest) (*kmsapi.EncryptResponse, error) {
				resp, err := encrypt(ctx, req)
				if err != nil {
					err = invalid(fmt.Sprintf("cannot encrypt %.40q", req.GetPlaintext()))
				}
				return resp, err
			}
		}},

		{name: "socket for everybody", fails: []string{"socket-mode"}, put: func(p *plugin) { p.socketMode, p.dirMode = 0o666, 0o755 }},
		{name: "directory for everybody", fails: []string{"socket-directory"}, put: func(p *plugin) { p.dirMode = 0o777 }},
	}
}

func (p *plugin) onStatus(change func(*kmsapi.StatusResponse)) {
	status := p.status
	p.status = func(ctx context.Context, req *kmsapi.StatusRequest) (*kmsapi.StatusResponse, error) {
		resp, err := status(ctx, req)
		change(resp)
		return resp, err
	}
}

// onEncrypt changes successful answers of Encrypt.
func (p *plugin) onEncrypt(change func(*kmsapi.EncryptRequest, *kmsapi.EncryptResponse)) {
	encrypt := p.encrypt
	p.encrypt = func(ctx context.Context, req *kmsapi.EncryptRequest) (*kmsapi.EncryptResponse, error) {
		resp, err := encrypt(ctx, req)
		if err == nil {
			change(req, resp)
		}
		return resp, err
	}
}

// onDecrypt changes successful answers of Decrypt.
func (p *plugin) onDecrypt(change func(*kmsapi.DecryptRequest, *kmsapi.DecryptResponse)) {
	decrypt := p.decrypt
	p.decrypt = func(ctx context.Context, req *kmsapi.DecryptRequest) (*kmsapi.DecryptResponse, error) {
		resp, err := decrypt(ctx, req)
		if err == nil {
			change(req, resp)
		}
		return resp, err
	}
}

func (p *plugin) beforeDecrypt(do func(context.Context, *kmsapi.DecryptRequest) error) {
	decrypt := p.decrypt
	p.decrypt = func(ctx context.Context, req *kmsapi.DecryptRequest) (*kmsapi.DecryptResponse, error) {
		if err := do(ctx, req); err != nil {
			return nil, err
		}
		return decrypt(ctx, req)
	}
}

// rename changes the key's key_id.
func (p *plugin) rename(name string) {
	p.onStatus(func(r *kmsapi.StatusResponse) { r.KeyId = name })
	p.onEncrypt(func(_ *kmsapi.EncryptRequest, r *kmsapi.EncryptResponse) { r.KeyId = name })
	p.beforeDecrypt(func(_ context.Context, req *kmsapi.DecryptRequest) error {
		switch req.GetKeyId() {
		case name:
			req.KeyId = keyID
		case keyID:
			return invalid("there is no such key_id")
		}
		return nil
	})
}

// padCiphertext makes ciphertexts of at least 1025 bytes.
func (p *plugin) padCiphertext() {
	const padding = 1000
	p.onEncrypt(func(req *kmsapi.EncryptRequest, r *kmsapi.EncryptResponse) {
		r.Ciphertext = p.seal(r.GetCiphertext()[:12:12], append(make([]byte, padding), req.GetPlaintext()...))
	})
	p.decrypt = func(_ context.Context, req *kmsapi.DecryptRequest) (*kmsapi.DecryptResponse, error) {
		plaintext, err := p.open(req.GetCiphertext())
		switch {
		case err != nil:
			return nil, err
		case req.GetKeyId() != keyID:
			return nil, invalid("there is no such key_id")
		case len(req.GetAnnotations()["conformance.trousseau.io"]) > 1024:
			return nil, invalid("the annotations are too large")
		}
		return &kmsapi.DecryptResponse{Plaintext: plaintext[padding:]}, nil
	}
}

// keepByHalf stores plaintexts under the first half of their content.
func (p *plugin) keepByHalf() {
	var kept sync.Map
	p.onEncrypt(func(req *kmsapi.EncryptRequest, r *kmsapi.EncryptResponse) {
		plaintext := req.GetPlaintext()
		sum := sha256.Sum256(plaintext[:(len(plaintext)+1)/2])
		r.Ciphertext = sum[:]
		kept.Store(sum, plaintext)
	})
	p.decrypt = func(_ context.Context, req *kmsapi.DecryptRequest) (*kmsapi.DecryptResponse, error) {
		size := 0
		for _, value := range req.GetAnnotations() {
			size += len(value)
		}
		if len(req.GetCiphertext()) != sha256.Size || req.GetKeyId() != keyID || size > 1024 {
			return nil, invalid("this is not ours")
		}
		plaintext, ok := kept.Load([sha256.Size]byte(req.GetCiphertext()))
		if !ok {
			return nil, invalid("this is not ours")
		}
		return &kmsapi.DecryptResponse{Plaintext: plaintext.([]byte)}, nil
	}
}

// trustKnownNonces does not verify the tag if it created the nonce.
func (p *plugin) trustKnownNonces() {
	var nonces sync.Map
	p.onEncrypt(func(_ *kmsapi.EncryptRequest, r *kmsapi.EncryptResponse) {
		nonces.Store(string(r.GetCiphertext()[:12]), true)
	})
	decrypt := p.decrypt
	p.decrypt = func(ctx context.Context, req *kmsapi.DecryptRequest) (*kmsapi.DecryptResponse, error) {
		resp, err := decrypt(ctx, req)
		ciphertext := req.GetCiphertext()
		if err != nil && req.GetKeyId() == keyID && len(req.GetAnnotations()) == 0 && len(ciphertext) == 12+32+16 {
			if _, known := nonces.Load(string(ciphertext[:12])); known {
				// GCM is CTR plus a tag.
				clear := p.aead.Seal(nil, ciphertext[:12], ciphertext[12:12+32], nil)
				return &kmsapi.DecryptResponse{Plaintext: clear[:32]}, nil
			}
		}
		return resp, err
	}
}
