// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"bytes"
	"encoding/base64"
	"encoding/gob"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log/slog"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.yaml.in/yaml/v3"

	"github.com/trousseau-io/trousseau/internal/config"
)

const marker = "hvs.MARKER0123456789"

func TestSecret(t *testing.T) {
	secret := config.NewSecret(marker)
	if got := secret.Reveal(); got != marker {
		t.Errorf("Reveal: got %q, want what NewSecret was given", got)
	}
	if secret.IsZero() {
		t.Error("IsZero: got true for a non-empty secret")
	}
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%30s", "%.3s"} {
		if got := fmt.Sprintf(format, secret); got != "[redacted]" {
			t.Errorf("%s: got %s, want [redacted]", format, got)
		}
	}
	for name, marshal := range map[string]func(any) ([]byte, error){"JSON": json.Marshal, "YAML": yaml.Marshal} {
		got, err := marshal(secret)
		if want := `"[redacted]"`; err != nil || strings.ReplaceAll(strings.TrimSpace(string(got)), "'", `"`) != want {
			t.Errorf("%s: got %s and error %v, want %s", name, got, err, want)
		}
	}
}

func TestEmptySecret(t *testing.T) {
	for _, empty := range []config.Secret{{}, config.NewSecret("")} {
		if !empty.IsZero() || empty.Reveal() != "" {
			t.Errorf("got IsZero %t and value %q, want an empty secret", empty.IsZero(), empty.Reveal())
		}
		if got := fmt.Sprintf("%v|%+v|%#v|%s", empty, empty, empty, empty); got != "|||" {
			t.Errorf("got %q, want that nothing is printed", got)
		}
	}
}

// TestConfigKeepsSecrets fills every Secret in a Config, wraps the Config in common containers, and prints it in
// every way.
func TestConfigKeepsSecrets(t *testing.T) {
	var c config.Config
	if filled := fillSecrets(reflect.ValueOf(&c).Elem()); filled != 4 {
		t.Fatalf("got %d secrets in Config, want token, secret ID, JWT and client key", filled)
	}
	for name, secret := range map[string]config.Secret{
		"token": c.Vault.Credential.Token, "secret ID": c.Vault.Credential.SecretID, "JWT": c.Vault.Credential.JWT,
	} {
		if got := secret.Reveal(); got != marker {
			t.Fatalf("got %s %q, want it filled", name, got)
		}
	}
	type inside struct{ c config.Config }
	type further struct {
		c *config.Config
		s []config.Secret
		m map[string]config.Secret
		i any
		f *config.Secret
	}
	for name, value := range map[string]any{
		"value":            c,
		"pointer":          &c,
		"section":          c.Vault,
		"credential":       c.Vault.Credential,
		"its pointer":      &c.Vault.Credential,
		"secret":           c.Vault.Credential.Token,
		"secret's pointer": &c.Vault.Credential.Token,
		"slice":            []config.Config{c},
		"map":              map[string]any{"config": c},
		"unexported field": inside{c},
		"pointer to one":   &inside{c},
		"all sorts of unexported fields": further{&c, []config.Secret{c.Vault.Credential.SecretID},
			map[string]config.Secret{"JWT": c.Vault.Credential.JWT}, c.Vault.Credential, &c.Vault.Credential.Token},
	} {
		for printer, text := range printed(value) {
			if form := leak(text); form != "" {
				t.Errorf("%s printed with %s shows the secret as %s: %s", name, printer, form, text)
			}
		}
	}
	// Self-check: the same printers do show a plain string.
	type open struct{ Token string }
	for printer, text := range printed(open{marker}) {
		if leak(text) == "" && !strings.HasPrefix(printer, "%") {
			t.Errorf("%s does not print fields, so it proves nothing", printer)
		}
	}
}

// fillSecrets sets every Secret in v to the marker and returns their number.
func fillSecrets(v reflect.Value) (filled int) {
	if v.Type() == reflect.TypeFor[config.Secret]() {
		v.Set(reflect.ValueOf(config.NewSecret(marker)))
		return 1
	}
	if v.Kind() == reflect.Struct {
		for _, field := range v.Fields() {
			filled += fillSecrets(field)
		}
	}
	return filled
}

// printed prints a value in many ways: printer → text.
func printed(value any) map[string]string {
	texts := make(map[string]string)
	for verb := 'A'; verb <= 'z'; verb++ {
		for _, flags := range []string{"", "+", "#", "-", " ", "0", "# ", "20.3"} {
			format := "%" + flags + string(verb)
			texts[format] = fmt.Sprintf(format, value)
		}
	}
	texts["errors"] = fmt.Errorf("using %v: %w", value, fmt.Errorf("%+v", value)).Error()
	for name, marshal := range map[string]func(any) ([]byte, error){
		"JSON": json.Marshal, "YAML": yaml.Marshal, "XML": xml.Marshal,
		"gob": func(v any) ([]byte, error) {
			var b bytes.Buffer
			err := gob.NewEncoder(&b).Encode(v)
			return b.Bytes(), err
		},
	} {
		text, err := marshal(value) // some cannot encode some values: then check the error for the secret
		texts[name] = string(text) + fmt.Sprint(err)
	}
	for name, encoder := range map[string]zapcore.Encoder{
		"zap JSON":    zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()),
		"zap console": zapcore.NewConsoleEncoder(zap.NewDevelopmentEncoderConfig()),
	} {
		var b bytes.Buffer
		logger := zap.New(zapcore.NewCore(encoder, zapcore.AddSync(&b), zap.DebugLevel))
		logger.Info("any", zap.Any("value", value))
		logger.Info("reflect", zap.Reflect("value", value))
		logger.Sugar().Infof("sugar %v", value)
		if stringer, ok := value.(fmt.Stringer); ok {
			logger.Info("stringer", zap.Stringer("value", stringer))
		}
		texts[name] = b.String()
	}
	var b bytes.Buffer
	slog.New(slog.NewTextHandler(&b, nil)).Info("text", "value", value)
	slog.New(slog.NewJSONHandler(&b, nil)).Info("json", "value", value)
	texts["slog"] = b.String()
	return texts
}

// leak returns the form in which text contains the marker, or "".
func leak(text string) string {
	forms := map[string]string{
		"itself":    marker,
		"a part":    marker[4:10],
		"hex":       hex.EncodeToString([]byte(marker)),
		"HEX":       strings.ToUpper(hex.EncodeToString([]byte(marker))),
		"hex bytes": strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%#v", []byte(marker)), "[]byte{"), "}"),
		"bytes":     strings.Trim(fmt.Sprint([]byte(marker)), "[]"),
		"base64":    base64.StdEncoding.EncodeToString([]byte(marker)),
	}
	for name, form := range forms {
		if strings.Contains(text, form) {
			return name
		}
	}
	return ""
}

// secretName matches the names of fields with secrets; KeyNames, a list of names, is not a secret.
var secretName = regexp.MustCompile(`(?i)token|secret|jwt|passw|passphrase|credential|key$`)

// exposed returns the fields in a type that are named like a secret and can be printed.
func exposed(t reflect.Type) (names []string) {
	for field := range t.Fields() {
		kind := field.Type
		for kind.Kind() == reflect.Slice || kind.Kind() == reflect.Pointer || kind.Kind() == reflect.Map {
			kind = kind.Elem()
		}
		switch {
		case kind == reflect.TypeFor[config.Secret]():
		case kind.Kind() == reflect.Struct:
			names = append(names, exposed(kind)...)
		case secretName.MatchString(field.Name):
			names = append(names, t.Name()+"."+field.Name)
		}
	}
	return names
}

// TestSecretsAreOfTypeSecret fails if Config has a token, key or password of type string.
func TestSecretsAreOfTypeSecret(t *testing.T) {
	if got := exposed(reflect.TypeFor[config.Config]()); got != nil {
		t.Errorf("these fields of Config hold secrets and must be of type Secret: %v", got)
	}
	type login struct {
		RoleID    string
		SecretID  string
		Password  []byte
		ClientKey *string
		JWT       string
		KeyNames  []string
		Token     config.Secret
	}
	type wrong struct{ Logins []login }
	got := exposed(reflect.TypeFor[wrong]())
	want := []string{"login.SecretID", "login.Password", "login.ClientKey", "login.JWT"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the check itself: got %v, want %v", got, want)
	}
}
