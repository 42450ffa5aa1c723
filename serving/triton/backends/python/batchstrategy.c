/* Keeps one caller's broken BYTES tensor from failing the requests that are batched with it.

   Triton's core does not check whether the last value of a BYTES tensor ends where the tensor ends, and its Python
   backend answers a whole batch with the error of one such tensor. Triton calls the functions below for each request
   that it adds to a batch. They replace a tensor that is cut short by values to which
   serving/triton/backends/encode.py responds with INVALID_ARG, for that request alone. The same happens to a request
   that is larger than MAX_BYTES, before it is copied.

   `make batching` compiles this file. The library is part of every release, and Triton uses it where it finds it. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Parts of Triton's tritonserver.h and tritonbackend.h, which are the same in all its versions. */
typedef struct Error Error;
typedef struct Request Request;
typedef struct Input Input;
enum { TYPE_BYTES = 13, MEMORY_CPU = 0, MEMORY_GPU = 2 };
void TRITONSERVER_ErrorDelete(Error *);
Error *TRITONBACKEND_RequestInputCount(Request *, uint32_t *count);
Error *TRITONBACKEND_RequestInputByIndex(Request *, uint32_t index, Input **);
Error *TRITONBACKEND_InputProperties(Input *, const char **name, int *type, const int64_t **shape, uint32_t *dims,
                                     uint64_t *bytes, uint32_t *buffers);
Error *TRITONBACKEND_InputBuffer(Input *, uint32_t index, const void **base, uint64_t *bytes, int *memory, int64_t *id);
Error *TRITONSERVER_InferenceRequestRemoveAllInputData(Request *, const char *name);
Error *TRITONSERVER_InferenceRequestAppendInputData(Request *, const char *name, const void *base, size_t bytes,
                                                    int memory, int64_t id);

#define EXPORTED __attribute__((visibility("default")))
#define MAX_BYTES (256ull << 20) /* of all BYTES tensors of a request */

/* Values with their length before them, which is the same for all. They are neither text nor pictures. */
#define VALUE(text) "\4\0\0\0\xff" text
#define REPEATED(value) value value value value value value value value
enum { VALUE_BYTES = 8, VALUES = 64 };
static const char CUT[] = REPEATED(REPEATED(VALUE("cut")));
static const char BIG[] = REPEATED(REPEATED(VALUE("big")));

__attribute__((used)) static const char source[] = SOURCE; /* SHA-256 of this file: a test compares it */

static bool failed(Error *error)
{
    if (error)
        TRITONSERVER_ErrorDelete(error);
    return error != NULL;
}

/* Whether the last value reaches beyond the tensor, or a length is not whole. */
static bool is_cut(Input *input, uint32_t buffers)
{
    uint64_t left = 0; /* of the value under way */
    for (uint32_t index = 0; index < buffers; index++) {
        const void *base;
        uint64_t size, at = 0;
        int memory = MEMORY_CPU;
        int64_t id = 0;
        if (failed(TRITONBACKEND_InputBuffer(input, index, &base, &size, &memory, &id)) || memory == MEMORY_GPU)
            return true;
        const uint8_t *bytes = base;
        while (left < size - at) {
            at += left;
            if (size - at < 4)
                return true;
            left = bytes[at] | bytes[at + 1] << 8 | bytes[at + 2] << 16 | (uint64_t)bytes[at + 3] << 24;
            at += 4;
        }
        left -= size - at;
    }
    return left != 0;
}

static void replace(Request *request, const char *name, uint64_t rows, const char *values)
{
    if (failed(TRITONSERVER_InferenceRequestRemoveAllInputData(request, name)))
        return;
    for (uint64_t some; rows; rows -= some) {
        some = rows < VALUES ? rows : VALUES;
        failed(TRITONSERVER_InferenceRequestAppendInputData(request, name, values, some * VALUE_BYTES, MEMORY_CPU, 0));
    }
}

EXPORTED Error *TRITONBACKEND_ModelBatchIncludeRequest(Request *request, void *batch, bool *include)
{
    uint32_t count = 0;
    uint64_t total = 0;
    *include = true;
    failed(TRITONBACKEND_RequestInputCount(request, &count));
    for (uint32_t index = 0; index < count; index++) {
        Input *input;
        const char *name;
        const int64_t *shape;
        uint64_t bytes, rows = 1;
        uint32_t dims, buffers;
        int type;
        if (failed(TRITONBACKEND_RequestInputByIndex(request, index, &input)) ||
            failed(TRITONBACKEND_InputProperties(input, &name, &type, &shape, &dims, &bytes, &buffers)) ||
            type != TYPE_BYTES)
            continue;
        for (uint32_t dim = 0; dim < dims; dim++)
            rows *= shape[dim];
        total += bytes;
        if (total > MAX_BYTES)
            replace(request, name, rows, BIG);
        else if (is_cut(input, buffers))
            replace(request, name, rows, CUT);
    }
    return NULL;
}

/* Triton requires all five functions. There is no state between two requests. */
EXPORTED Error *TRITONBACKEND_ModelBatchInitialize(const void *batcher, void **batch)
{
    *batch = NULL;
    return NULL;
}

EXPORTED Error *TRITONBACKEND_ModelBatchFinalize(void *batch)
{
    return NULL;
}

EXPORTED Error *TRITONBACKEND_ModelBatcherInitialize(void **batcher, void *model)
{
    *batcher = NULL;
    return NULL;
}

EXPORTED Error *TRITONBACKEND_ModelBatcherFinalize(void *batcher)
{
    return NULL;
}
