#!/bin/sh
# OpenAI's API with curl. FATHOM_URL: the router.
set -eu
url=${FATHOM_URL:-http://127.0.0.1:8000}

echo "# The served model"
curl -sS --fail-with-body "$url/v1/models"

echo "# A chat"
curl -sS --fail-with-body "$url/v1/chat/completions" -H 'Content-Type: application/json' -d '{
  "messages": [{"role": "user", "content": "What is the capital of France?"}],
  "temperature": 0,
  "max_completion_tokens": 32
}'

echo "# The same as a stream"
curl -sSN --fail-with-body "$url/v1/chat/completions" -H 'Content-Type: application/json' -d '{
  "messages": [{"role": "user", "content": "What is the capital of France?"}],
  "temperature": 0,
  "max_completion_tokens": 32,
  "stream": true,
  "stream_options": {"include_usage": true}
}'

echo "# A repetition with the same key has the same answer"
for i in 1 2; do
  curl -sS --fail-with-body "$url/v1/completions" -H 'Content-Type: application/json' -H 'Idempotency-Key: example-1' \
    -d '{"prompt": "Once upon a time", "max_tokens": 8}'
done

echo "# Token ids"
curl -sS --fail-with-body "$url/tokenize" -H 'Content-Type: application/json' -d '{"prompt": "naïve", "return_token_strs": true}'
