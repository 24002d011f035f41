/* A driver without a GPU: prints each call of the launcher, and the kernel's arguments as the driver would read them. */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>

int cuInit(unsigned flags) { return 0; }
int cuDriverGetVersion(int *version) { *version = 13000; return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) { *value = attribute; return 0; }
int cuDevicePrimaryCtxRetain(void **context, int device) { *context = (void *)(uintptr_t)(16 + device); return 0; }
int cuCtxPushCurrent(void *context) { printf("push %p\n", context); return 0; }
int cuCtxPopCurrent(void **context) { puts("pop"); *context = 0; return 0; }
int cuModuleLoadData(void **module, const char *text) { printf("load %s\n", text); *module = (void *)32; return 0; }

int cuModuleGetFunction(void **function, void *module, const char *name) {
    printf("function %p %s\n", module, name);
    *function = (void *)48;
    return 0;
}

int cuLaunchKernel(void *function, unsigned x, unsigned y, unsigned z, unsigned threads_x, unsigned threads_y,
                   unsigned threads_z, unsigned shared, void *stream, void **arguments, void **extra) {
    printf("launch %p %u %u %u %u %u %u %u %p %d", function, x, y, z, threads_x, threads_y, threads_z, shared, stream,
           extra != 0);
    printf(" %lx %d\n", *(unsigned long *)arguments[0], *(int *)arguments[1]);
    return stream == (void *)222 ? 222 : 0;
}

int cuGetErrorName(int error, const char **name) { *name = error == 222 ? "CUDA_ERROR_NAME" : 0; return !*name; }
int cuGetErrorString(int error, const char **text) { *text = error == 222 ? "a text" : 0; return !*text; }

int cuGetProcAddress(const char *name, void **function, int version, uint64_t flags) {
    *function = dlsym(dlopen("libcuda.so.1", RTLD_NOW), name);
    return *function ? 0 : 500;
}

int cuGetProcAddress_v2(const char *name, void **function, int version, uint64_t flags, int *status) {
    return cuGetProcAddress(name, function, version, flags);
}
