/* Chooses the instruction set, once at import or when asked; and holds the precision asked for. */
#include "kernels.h"

#include <stdatomic.h>
#include <string.h>

const struct kernel_table *cnn_f32, *cnn_f64;
static const char *current = "none";

#define DECLARE(isa) extern const struct kernel_table cnn_##isa##_f32, cnn_##isa##_f64;
DECLARE(baseline)
#if defined(__x86_64__) || defined(_M_X64)
DECLARE(avx2)
DECLARE(avx512)
static int has_avx2(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
static int has_avx512(void) {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl")
        && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
}
#endif
static int always(void) { return 1; }

static const struct {
    const char *name;
    int (*supported)(void);
    const struct kernel_table *f32, *f64;
} sets[] = {   /* best first */
#if defined(__x86_64__) || defined(_M_X64)
    {"avx512", has_avx512, &cnn_avx512_f32, &cnn_avx512_f64},
    {"avx2", has_avx2, &cnn_avx2_f32, &cnn_avx2_f64},
#endif
    {"baseline", always, &cnn_baseline_f32, &cnn_baseline_f64},
};
enum { SETS = sizeof sets / sizeof *sets };

int cnn_set_isa(const char *name) {
    for (int i = 0; i < SETS; i++)
        if ((!name || !strcmp(name, sets[i].name)) && sets[i].supported()) {
            cnn_f32 = sets[i].f32, cnn_f64 = sets[i].f64, current = sets[i].name;
            return 0;
        }
    return -1;
}

const char *cnn_isa(void) { return current; }

const char *cnn_available_isa(int i) {
    for (int s = 0; s < SETS; s++)
        if (sets[s].supported() && i-- == 0) return sets[s].name;
    return NULL;
}

static atomic_int exact;
void cnn_set_exact(int value) { atomic_store(&exact, value); }
int cnn_get_exact(void) { return atomic_load(&exact); }
